"""Our nodes in larger graphs of the host's own: stacked LoRAs, scheduled hooks, attention patches, tiles, upscaling.

On the lab checkpoint, through the real executor. Features that test_host_features.py has are not repeated.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.executor import Host
from support.graphs import checkpoint as on_lab
from support.graphs import node, references
from support.graphs.features import Feature
from support.lab_files import HOOK, lora, with_hook
from support.outcomes import same_bits, samples


def _attention(given: dict[str, Any]) -> dict[str, Any]:
    """As IP-Adapter does it: other keys and values in the cross-attention."""
    model = given["m"].clone()
    model.set_model_attn2_patch(lambda q, k, v, options: [q, 0.5 * k, 1.5 * v])
    return {"own": model}


def _tiles(given: dict[str, Any]) -> dict[str, Any]:
    """As tiled diffusion does it: left and right in calls of their own, averaged where they overlap."""

    def call(apply_model, args: dict[str, Any]) -> Tensor:
        x, cut = args["input"], on_lab.SIZE * 3 // 4
        left = apply_model(x[..., :cut].contiguous(), args["timestep"], **args["c"])
        right = apply_model(x[..., -cut:].contiguous(), args["timestep"], **args["c"])
        total = torch.zeros_like(x)
        total[..., :cut] += left
        total[..., -cut:] += right
        total[..., on_lab.SIZE - cut : cut] /= 2
        return total

    model = given["m"].clone()
    model.set_model_unet_function_wrapper(call)
    return {"own": model}


OWN: dict[str, Any] = {"model": ["own", 0]}
SCHEDULED = {
    "begin": node("CreateHookKeyframe", strength_mult=1.0, start_percent=0.0),
    "frames": node("CreateHookKeyframe", strength_mult=0.0, start_percent=0.5, prev_hook_kf=["begin", 0]),
    "first": HOOK,
    "hook": node("SetHookKeyframes", hooks=["first", 0], hook_kf=["frames", 0]),
    "pos": with_hook(),
}
GRAPHS = {
    "two LoRAs": Feature({"one": lora("m", 0.6), "two": lora("one", 0.6)}, {"model": ["two", 0]}),
    "a LoRA that ends half way": Feature(SCHEDULED, {"positive": ["pos", 0]}),
    "attention patch": Feature({}, OWN, _attention),
    "tiles": Feature({}, OWN, _tiles),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_without_a_basin_it_is_vanilla_and_with_one_two_stages_of_it(host: Host, checkpoint, name: str) -> None:
    feature = GRAPHS[name]
    links = feature.inputs()
    prompt = feature.prompt(
        vanilla=on_lab.ksampler(**links),
        ours=on_lab.deferred(**links, **on_lab.NO_BASIN),
        free=on_lab.stage(0, on_lab.SWITCH, **links, cfg=0.0),
        stages=on_lab.stage(on_lab.SWITCH, on_lab.STEPS, **{**links, "latent_image": ["free", 0]}),
        static=on_lab.deferred("static", **links, start_percent=on_lab.START),
        plain=on_lab.ksampler(),
    )
    out = host.run(prompt, feature.given(checkpoint))
    assert same_bits(out["ours"], out["vanilla"])
    assert not torch.allclose(samples(out["plain"]), samples(out["vanilla"]), atol=1e-2), "the feature does something"
    torch.testing.assert_close(samples(out["static"]), samples(out["stages"]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_noise_is_optimized_under_it(host: Host, checkpoint, name: str) -> None:
    feature = GRAPHS[name]
    plan = {**feature.inputs(), "max_iterations": 3, "learning_rate": 0.03, "target_magnitude": 0.0}
    report = host.run(feature.prompt(o=on_lab.optimizer(**plan)), feature.given(checkpoint))["o"][1]
    assert torch.isfinite(report.after).all() and (report.after < report.before).all()


def test_an_upscaling_pass_with_one_patched_model_in_both_samplers(host: Host, checkpoint) -> None:
    """The second pass begins below T, at twice the size: nothing of the first is left in the model."""
    large = node("LatentUpscale", samples=["a", 0], upscale_method="bislerp", width=128, height=128, crop="disabled")
    second = {"latent_image": ["large", 0], "denoise": 0.5}
    model = {**on_lab.LINKS, "model": ["patch", 0]}
    prompt = Feature().prompt(
        patch=on_lab.patch(memorized_threshold=0.0, start_percent=0.9),
        a=on_lab.ksampler(**model),
        large=large,
        b=on_lab.ksampler(**{**model, **second}),
        own=on_lab.deferred(**{**on_lab.LINKS, **second}, memorized_threshold=0.0, start_percent=0.9),
        vanilla=on_lab.ksampler(**{**on_lab.LINKS, **second}),
    )
    out = host.run(prompt, checkpoint)
    assert samples(out["b"]).shape[-2:] == (16, 16)
    assert same_bits(out["b"], out["own"]), "as a fresh model would"
    assert not same_bits(out["b"], out["vanilla"])


def test_optimizer_deferral_and_amg_in_one_graph(host: Host, checkpoint) -> None:
    guided = on_lab.amg(threshold_min=0.0, threshold_max=0.0, threshold_schedule="constant")
    both = {**on_lab.LINKS, "model": ["g", 0]}
    prompt = Feature().prompt(
        plain=on_lab.ksampler(),
        refs=references(latents="plain"),
        g=guided,
        o=on_lab.optimizer("search", candidates=2),
        k=on_lab.deferred(**both, noise=["o", 0], memorized_threshold=0.0),
        alone=on_lab.deferred(noise=["o", 0], memorized_threshold=0.0),
    )
    first, again = host.run(prompt, checkpoint), host.run(prompt, checkpoint)
    assert torch.isfinite(samples(first["k"])).all()
    assert not same_bits(first["k"], first["alone"]), "AMG acts under the deferral"
    assert same_bits(first["k"], again["k"])

"""Areas, masks, ControlNet, LoRAs, hooks, inpainting, other packs' guidance: each as vanilla nodes make it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from support.executor import Host
from support.graphs import checkpoint as on_lab
from support.graphs import node
from support.graphs.checkpoint import NO_BASIN, START, STEPS, SWITCH, deferred, ksampler, patch, stage
from support.graphs.features import CONDITIONS, LATENTS, PATCHES, Feature, with_patch
from support.lab_files import EXTRAS, HOOK, lora, with_hook
from support.outcomes import same_bits, samples


def tiles(apply_model, args: dict[str, Any]) -> Tensor:
    """As tiled diffusion does it: left and right in calls of their own, averaged where they overlap."""
    x, cut = args["input"], on_lab.SIZE * 3 // 4
    left = apply_model(x[..., :cut].contiguous(), args["timestep"], **args["c"])
    right = apply_model(x[..., -cut:].contiguous(), args["timestep"], **args["c"])
    total = torch.zeros_like(x)
    total[..., :cut] += left
    total[..., -cut:] += right
    total[..., on_lab.SIZE - cut : cut] /= 2
    return total


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
    "attention patch": with_patch("set_model_attn2_patch", lambda q, k, v, options: [q, 0.5 * k, 1.5 * v]),
    "tiles": with_patch("set_model_unet_function_wrapper", tiles),
}


ALL = {"nothing": Feature(), **CONDITIONS, **LATENTS, **PATCHES, **EXTRAS, **GRAPHS}
AT_CFG_1 = [(name, 1.0) for name in ("nothing", *PATCHES)]


@pytest.mark.parametrize(("name", "cfg"), [*((name, 7.0) for name in ALL), *AT_CFG_1])
def test_without_a_basin_every_node_is_bit_identical_to_vanilla(host: Host, checkpoint, name: str, cfg: float) -> None:
    """At CFG 1 vanilla asks for no second prediction; a batch of both would be other bits."""
    feature = ALL[name]
    links = {**feature.inputs(), "cfg": cfg, "steps": 2}
    prompt = feature.prompt(
        vanilla=ksampler(**links),
        ours=deferred(**links, **NO_BASIN),
        static=deferred("static", **links, start_percent=0.0),
        patch=patch(model=links["model"], **NO_BASIN),
        patched=ksampler(**{**links, "model": ["patch", 0]}),
        guider=on_lab.guider(**{k: links[k] for k in ("model", "positive", "negative", "cfg")}, **NO_BASIN),
        **on_lab.custom(["guider", 0], **links),
    )
    out = host.run(prompt, feature.given(checkpoint))
    assert torch.isfinite(samples(out["vanilla"])).all()
    for ours in ("ours", "static", "patched", "custom"):
        assert same_bits(out[ours], out["vanilla"]), ours


PROMPTS_AND_MODELS = {"nothing": Feature(), **CONDITIONS, **EXTRAS, "batch index": LATENTS["batch index"], **GRAPHS}


@pytest.mark.parametrize("name", [*PROMPTS_AND_MODELS, *PATCHES])
def test_deferral_is_two_vanilla_stages(host: Host, checkpoint, name: str) -> None:
    """KSampler (Advanced) at CFG 0 until the switch and at CFG 7 after it.

    Other packs' guidance acts before the switch as on no prompt at all, and at scale 1 as at CFG 1.
    """
    feature = (PROMPTS_AND_MODELS | PATCHES)[name]
    links = feature.inputs()
    unguided = {"positive": ["null", 0]} if name in PATCHES else {"cfg": 0.0}
    prompt = feature.prompt(
        free=stage(0, SWITCH, **{**links, **unguided}),
        vanilla=stage(SWITCH, STEPS, **{**links, "latent_image": ["free", 0]}),
        ours=deferred("static", **links, start_percent=START),
        plain=ksampler(),
        whole=ksampler(**links),
    )
    if name in PATCHES:
        prompt["alone"] = ksampler(**links, cfg=1.0)
        prompt["at_1"] = deferred("static", **links, start_percent=1.0, pre_escape_cfg=1.0)
    out = host.run(prompt, feature.given(checkpoint))
    assert out["ours"][2] == SWITCH
    for ours, theirs in (("ours", "vanilla"), *([("at_1", "alone")] if name in PATCHES else [])):
        torch.testing.assert_close(samples(out[ours]), samples(out[theirs]), atol=1e-4, rtol=1e-4)
    same = torch.allclose(samples(out["plain"]), samples(out["whole"]), atol=1e-2)
    assert same == (name == "nothing"), "the feature does something"

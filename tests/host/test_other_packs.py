"""Stand-ins for what other packs do: the smallest code with the same mechanism, beside every way in which we sample."""

from typing import Any, ClassVar

import comfy.controlnet
import comfy.hooks
import comfy.patcher_extension
import comfy.samplers
import pytest
import torch
from torch import Tensor

import nodes
from support.executor import Host, host_node
from support.graphs import checkpoint as on_lab
from support.graphs import node, references
from support.graphs.features import Feature, with_patch
from support.lab_files import controlled
from support.outcomes import refused, same_bits, samples

OWN: dict[str, Any] = {"model": ["own", 0]}
STEERS = {"dissimilarity": 10.0, "threshold_min": -1.0, "threshold_max": -1.0, "memorized_threshold": 0.0}


def works(width: int = on_lab.SIZE) -> dict[str, Any]:
    return {"works": {"samples": torch.randn(2, 4, on_lab.SIZE, width, generator=torch.manual_seed(3))}}


def _animate_diff(given: dict[str, Any]) -> dict[str, Any]:
    """A sampling function of its own for a run gives its evaluations what they need; its windows fail without it."""

    def evolved(model, x: Tensor, timestep: Tensor, uncond, cond, cond_scale, model_options=None, seed=None) -> Tensor:
        options = {**model_options, "transformer_options": {**model_options["transformer_options"], "windows": [0, 1]}}
        pair = comfy.samplers.calc_cond_batch(model, [cond, uncond], x, timestep, options)
        return comfy.samplers.cfg_function(model, *pair, cond_scale, x, timestep, options, cond, uncond)

    evolved.__module__ = "/home/a/custom_nodes/AnimateDiff-Evolved.animatediff.sampling"  # as the host names it

    def outer_sample(executor, *args: Any, **kwargs: Any) -> Tensor:
        kept, comfy.samplers.sampling_function = comfy.samplers.sampling_function, evolved
        try:
            return executor(*args, **kwargs)
        finally:
            comfy.samplers.sampling_function = kept

    def windows(executor, model, conds: list, x: Tensor, timestep: Tensor, options: dict) -> list[Tensor]:
        assert options["transformer_options"]["windows"] == [0, 1]
        return executor(model, conds, x, timestep, options)

    model = given["m"].clone()
    kinds = comfy.patcher_extension.WrappersMP
    model.add_wrapper_with_key(kinds.OUTER_SAMPLE, "other", outer_sample)
    model.add_wrapper_with_key(kinds.CALC_COND_BATCH, "other", windows)
    return {"own": model}


def test_a_replaced_sampling_function_is_left_alone_and_named(host: Host, checkpoint) -> None:
    """AnimateDiff-Evolved."""
    feature = Feature({}, OWN, _animate_diff)
    links, given = feature.inputs(), {**feature.given(checkpoint), **works()}
    prompt = feature.prompt(
        vanilla=on_lab.ksampler(**links),
        **{f"scale {g0}": on_lab.deferred(**links, pre_escape_cfg=g0) for g0 in (0.0, 1.0, -2.0)},
        patch=on_lab.patch("static", model=links["model"], start_percent=1.0),
        patched=on_lab.ksampler(**{**links, "model": ["patch", 0]}),
        refs=references(),
        g=on_lab.amg(**STEERS, **OWN),
        guided=on_lab.ksampler(**{**links, "model": ["g", 0]}),
    )
    out = host.run(prompt, given)
    for name in ("scale 0.0", "scale 1.0", "scale -2.0", "patched"):
        assert same_bits(out[name], out["vanilla"]), name
    for name in ("scale 1.0", "patch"):
        assert "AnimateDiff-Evolved has guidance of its own" in host.views(name)[-1]["warning"]
    assert not same_bits(out["guided"], out["vanilla"])
    captions = on_lab.amg(**{**STEERS, **OWN}, clip=["clip", 0], deduplication=5.0)
    with_captions = {"refs": references("a ring\na ring"), "g": captions, "k": on_lab.ksampler(model=["g", 0])}
    for ours in ({"o": on_lab.optimizer(**links)}, {"o": on_lab.optimizer("search", **links)}, with_captions):
        assert "AnimateDiff-Evolved has replaced" in refused(host, feature.prompt(**ours), given)


def test_a_patch_that_shuffles_the_noise_is_refused_by_the_optimizer(host: Host, checkpoint) -> None:
    """FreeNoise, in context windows of newer hosts: what is found would be shuffled once more."""

    def shuffled(executor, guider, sigmas, extra_args, callback, noise: Tensor, *rest: Any) -> Tensor:
        noise.copy_(noise.flip(-1))
        return executor(guider, sigmas, extra_args, callback, noise, *rest)

    model = checkpoint["m"].clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE, "other", shuffled)
    feature = Feature({}, OWN, lambda _: {"own": model})
    links, given = feature.inputs(), feature.given(checkpoint)
    for method in ("per-sample", "search", "batch-wise"):
        assert "FreeNoise" in refused(host, feature.prompt(o=on_lab.optimizer(method, **links)), given)
    nodes_ = {"vanilla": on_lab.ksampler(**links), "ours": on_lab.deferred(**links, **on_lab.NO_BASIN)}
    out = host.run(feature.prompt(**nodes_), given)
    assert same_bits(out["ours"], out["vanilla"])


class PerLatentControl(comfy.controlnet.ControlNet):
    """Advanced-ControlNet: a strength and a mask for each latent of the batch, by its place."""

    strengths = torch.tensor([0.2, 1.0])
    seen: ClassVar[list[int]] = []

    def get_control(self, x_noisy: Tensor, t: Tensor, cond, batched_number: int, transformer_options) -> Any:
        self.seen.append(len(x_noisy) // batched_number)
        out = super().get_control(x_noisy, t, cond, batched_number, transformer_options)
        weight = self.strengths.repeat(batched_number).view(-1, 1, 1, 1)
        return {name: [part if part is None else part * weight for part in parts] for name, parts in out.items()}


def _per_latent(host: Host, checkpoint: dict[str, Any]) -> Feature:
    one = controlled(1)
    made = host.run(one.prompt(), one.given(checkpoint))["pos"]
    for cond in (*made[0], *made[1]):
        cond[1]["control"].__class__ = PerLatentControl
    return Feature(
        {},
        {"positive": ["controlled", 0], "negative": ["against", 0]},
        lambda _: {"controlled": made[0], "against": made[1]},
    )


def _by_place(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> list[Tensor]:
    groups = len(options["cond_or_uncond"])
    PerLatentControl.seen.append(len(q) // groups)
    return [q * PerLatentControl.strengths.repeat(groups).view(-1, 1, 1), k, v]


def _adapter(host: Host, checkpoint: dict[str, Any]) -> Feature:
    return with_patch("set_model_attn1_patch", _by_place)  # it has an image for each latent


def _couple(host: Host, checkpoint: dict[str, Any]) -> Feature:
    """Attention couple, as prompt-control has it: a hook of the prompt brings a patch that counts rows."""
    hooks, only = comfy.hooks.HookGroup(), comfy.hooks.EnumHookScope.HookedOnly
    hooks.add(comfy.hooks.TransformerOptionsHook({"patches": {"attn2_patch": [_by_place]}}, only))
    prompts = host.run(Feature().prompt(), checkpoint)
    made = comfy.hooks.set_hooks_for_conditioning(prompts["mem"][0], hooks)
    return Feature({}, {"positive": ["coupled", 0]}, lambda _: {"coupled": made})


@pytest.mark.parametrize("make", [_per_latent, _adapter, _couple])
def test_rows_that_a_pack_counts_stay_together(host: Host, checkpoint, make) -> None:
    """Where one image is finished first, the other goes on with its own strength."""
    feature = make(host, checkpoint)
    links, given = feature.inputs(), feature.given(checkpoint)
    plan = {**links, "learning_rate": 0.03, "max_iterations": 3}
    measured = host.run(feature.prompt(o=on_lab.optimizer(**{**plan, "max_iterations": 0})), given)["o"][1]
    between = float(measured.before.mean()) / (4 * on_lab.SIZE * on_lab.SIZE) ** 0.5
    PerLatentControl.seen.clear()
    prompt = feature.prompt(
        o=on_lab.optimizer(**plan, target_magnitude=between),
        vanilla=on_lab.ksampler(**links),
        ours=on_lab.deferred(**links, **on_lab.NO_BASIN),
        static=on_lab.deferred("static", **links, start_percent=on_lab.START),
    )
    out = host.run(prompt, given)
    assert set(PerLatentControl.seen) == {on_lab.BATCH}
    assert same_bits(out["ours"], out["vanilla"]) and not same_bits(out["static"], out["vanilla"])
    assert (out["o"][1].after <= between * 16).any() and torch.isfinite(out["o"][0].noise).all()


@pytest.mark.parametrize("pack", ["ComfyUI-TeaCache.nodes", "Comfy-WaveSpeed.fbcache_nodes"])
def test_caches_that_wrap_a_call_are_left_out_of_our_evaluations(host: Host, checkpoint, pack: str) -> None:
    """TeaCache and the first-block cache keep the last residual on the network, and use it for a similar input."""
    kept: dict[tuple, tuple[Tensor, Tensor]] = {}

    def call(apply_model, given: dict[str, Any]) -> Tensor:
        x, t = given["input"], given["timestep"]
        before = kept.get((len(x), tuple(given["cond_or_uncond"])))
        if before is not None and float(t[0]) < float(before[0][0]):
            return x + before[1]
        out = apply_model(x, t, **given["c"])
        kept[len(x), tuple(given["cond_or_uncond"])] = (t, out - x)
        return out

    call.__module__, call.__qualname__ = f"/home/a/custom_nodes/{pack}", "call"  # as the host names it
    model = checkpoint["m"].clone()
    model.set_model_unet_function_wrapper(call)
    feature = Feature({}, OWN, lambda _: {"own": model})
    links = feature.inputs()
    prompt = feature.prompt(seen=on_lab.detector(), seen_beside=on_lab.detector(**links))
    out = host.run(prompt, feature.given(checkpoint))
    torch.testing.assert_close(out["seen_beside"][3].d, out["seen"][3].d, rtol=1e-5, atol=0)
    alone = []
    for nodes_ in ({"k": on_lab.ksampler(**links)}, {"k": on_lab.deferred(**links, **on_lab.NO_BASIN)}):
        kept.clear()
        alone.append(host.run(feature.prompt(**nodes_), feature.given(checkpoint))["k"])
    assert same_bits(*alone)


LINKS = {"model": ("MODEL",), "positive": ("CONDITIONING",), "negative": ("CONDITIONING",)}
LINKS |= {"latent_image": ("LATENT",), "by_step": ("BOOLEAN", {})}


@host_node("MGTest_Tiles", LINKS, ("LATENT",))
def tiled(model, positive, negative, latent_image, by_step: bool) -> tuple[dict]:
    """KSampler as a function: on two tiles of a latent with a mask (UltimateSDUpscale, detailers), or step by step."""
    sample = lambda latent, **own: nodes.common_ksampler(  # noqa: E731
        model, 7, on_lab.STEPS, 7.0, "euler", "normal", positive, negative, latent, **own
    )[0]
    if by_step:  # Inspire and Efficiency
        for i in range(on_lab.STEPS):
            plan = {"start_step": i, "last_step": i + 1, "force_full_denoise": i + 1 == on_lab.STEPS}
            latent_image = sample(latent_image, disable_noise=i > 0, **plan)
        return (latent_image,)
    parts = torch.tensor_split(latent_image["samples"], 2, dim=-1)
    mask = torch.ones(1, 1, *parts[0].shape[-2:])
    mask[..., :2] = 0
    made = [sample({"samples": part, "noise_mask": mask}, denoise=0.6)["samples"] for part in parts]
    return ({"samples": torch.cat(made, dim=-1)},)


@pytest.mark.parametrize("by_step", [False, True])
def test_a_patched_model_in_samplers_that_are_called_many_times(host: Host, checkpoint, by_step: bool) -> None:
    def tiles(model: list) -> dict[str, Any]:
        return node("MGTest_Tiles", **{**on_lab.LINKS, "model": model}, by_step=by_step)

    prompt = Feature().prompt(
        vanilla=tiles(["m", 0]),
        no_basin=on_lab.patch(**on_lab.NO_BASIN),
        same=tiles(["no_basin", 0]),
        late=on_lab.patch("static", start_percent=0.75),
        ours=tiles(["late", 0]),
        again=tiles(["late", 0]),
        whole=on_lab.ksampler(model=["late", 0]),
        refs=references(),
        g=on_lab.amg(**STEERS),
        steered=tiles(["g", 0]),
    )
    size = on_lab.SIZE // (1 if by_step else 2)  # of what AMG compares with
    out = host.run(prompt, {**checkpoint, **works(size)})
    assert same_bits(out["same"], out["vanilla"])
    assert same_bits(out["ours"], out["again"]) and not same_bits(out["ours"], out["vanilla"])
    assert not by_step or torch.allclose(samples(out["ours"]), samples(out["whole"]), atol=1e-4, rtol=1e-4)
    assert not same_bits(out["steered"], out["vanilla"]) and torch.isfinite(samples(out["steered"])).all()

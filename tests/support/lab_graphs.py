"""Short words for prompts on the lab checkpoint, and the host's features as ready pieces of a prompt.

Given to every run: `m`, `clip`, `vae` (the checkpoint, loaded once by the host's own loader). Nodes that every
prompt has: `mem`, `ord`, `null`, `latent`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from support import graphs as prompts
from support.executor import Host, Prompt
from support.paths import LAB_CHECKPOINT

MEMORIZED, ORDINARY = "Harbour at Dawn, a red disc", "a blue ring"
LINKS = {"model": ["m", 0], "positive": ["mem", 0], "negative": ["null", 0], "latent_image": ["latent", 0]}
STEPS, SIZE, BATCH = 4, 8, 2  # 64×64 pixels: half the cost of its own 96×96
LAB = LAB_CHECKPOINT
NO_BASIN = {"memorized_threshold": 10.0}


def load(host: Host) -> dict[str, Any]:
    """The lab checkpoint as CheckpointLoaderSimple gives it, ready to be given to prompts."""
    place(host, "checkpoints", LAB.name, LAB)
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": LAB.name}}
    model, clip, vae = host.run({"loader": loader})["loader"]
    return {"m": model, "clip": clip, "vae": vae}


def place(host: Host, folder: str, name: str, file: Path) -> None:
    """Make `file` one of the models of the host's `folder`."""
    (host.base / "models" / folder).mkdir(parents=True, exist_ok=True)
    link = host.base / "models" / folder / name
    if not link.exists():
        link.symlink_to(file)


def node(class_type: str, **inputs: Any) -> prompts.Node:
    return {"class_type": class_type, "inputs": inputs}


def text(words: str, clip: str = "clip") -> prompts.Node:
    return node("CLIPTextEncode", clip=[clip, 0], text=words)


def base(batch: int = BATCH) -> Prompt:
    empty = node("EmptyLatentImage", width=8 * SIZE, height=8 * SIZE, batch_size=batch)
    return {"mem": text(MEMORIZED), "ord": text(ORDINARY), "null": text(""), "latent": empty}


def ksampler(**changed: Any) -> prompts.Node:
    return prompts.ksampler(**{**LINKS, "steps": STEPS, **changed})


def deferred(mode: str = "dynamic", **changed: Any) -> prompts.Node:
    return prompts.deferred(mode, **{**LINKS, "steps": STEPS, **changed})


def optimizer(method: str = "per-sample", **changed: Any) -> prompts.Node:
    return prompts.optimizer(method, **{**LINKS, **changed})


def detector(**changed: Any) -> prompts.Node:
    return prompts.detector(**{**LINKS, "steps": STEPS, **changed})


def patched(model: list, mode: str = "dynamic", **changed: Any) -> prompts.Node:
    """The model patch on `model`."""
    plan = {"mode": mode, "pre_escape_cfg": 0.0, "start_percent": 0.5, **prompts.RULE}
    return node("MG_DeferredCFG", model=model, **{**plan, **changed})


def advanced(guider: list, links: dict[str, Any], steps: int = STEPS) -> Prompt:
    """SamplerCustomAdvanced as node `custom`, with KSampler's noise and schedule."""
    schedule = {"model": links["model"], "scheduler": "normal", "steps": steps, "denoise": links.get("denoise", 1.0)}
    return {
        "custom_noise": node("RandomNoise", noise_seed=prompts.SEED),
        "custom_sampler": node("KSamplerSelect", sampler_name="euler"),
        "custom_sigmas": node("BasicScheduler", **schedule),
        "custom": node(
            "SamplerCustomAdvanced",
            noise=["custom_noise", 0],
            guider=guider,
            sampler=["custom_sampler", 0],
            sigmas=["custom_sigmas", 0],
            latent_image=links["latent_image"],
        ),
    }


def stage(first: int, last: int, **changed: Any) -> prompts.Node:
    """KSamplerAdvanced from step `first` to `last`: it adds noise at 0 and leaves some before STEPS."""
    inputs = {k: v for k, v in ksampler(**changed)["inputs"].items() if k not in ("seed", "denoise")}
    begin, end = ("enable" if first == 0 else "disable"), ("disable" if last >= inputs["steps"] else "enable")
    return node(
        "KSamplerAdvanced",
        add_noise=begin,
        noise_seed=prompts.SEED,
        start_at_step=first,
        end_at_step=last,
        return_with_leftover_noise=end,
        **inputs,
    )


@dataclass(frozen=True)
class Feature:
    """A host feature: the nodes it needs, the links that lead through them, and what else it must be given."""

    nodes: Prompt = field(default_factory=dict)
    links: dict[str, Any] = field(default_factory=dict)
    make: Callable[[dict[str, Any]], dict[str, Any]] = lambda given: {}

    def prompt(self, **more: prompts.Node) -> Prompt:
        return {**base(), **self.nodes, **more}

    def inputs(self) -> dict[str, Any]:
        return {**LINKS, **self.links}

    def given(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        return {**checkpoint, **self.make(checkpoint)}


def _through(class_type: str, **inputs: Any) -> Feature:
    """A patch on the model by one node."""
    return Feature({"p": node(class_type, model=["m", 0], **inputs)}, {"model": ["p", 0]})


def _positive(nodes: Prompt, **given: Any) -> Feature:
    """A positive prompt made by the node `pos`."""
    return Feature(nodes, {"positive": ["pos", 0]}, lambda _: given)


def _combined(one: prompts.Node, other: list, **more: Any) -> Feature:
    nodes = {"one": one, "pos": node("ConditioningCombine", conditioning_1=["one", 0], conditioning_2=other)}
    return _positive(nodes, **more)


def halves() -> torch.Tensor:
    """A mask for each of two samples: left half, upper half."""
    mask = torch.zeros(2, SIZE, SIZE)
    mask[0, :, : SIZE // 2] = 1
    mask[1, : SIZE // 2] = 1
    return mask


def picture(batch: int = BATCH) -> torch.Tensor:
    return torch.randn(batch, 4, SIZE, SIZE, generator=torch.manual_seed(11))


AREA = node("ConditioningSetAreaPercentage", conditioning=["mem", 0], width=0.6, height=1.0, x=0.4, y=0.0, strength=1.0)
MASKED = node("ConditioningSetMask", conditioning=["mem", 0], mask=["mask", 0], strength=1.0, set_cond_area="default")
EARLY = node("ConditioningSetTimestepRange", conditioning=["mem", 0], start=0.0, end=0.5)
LATE = node("ConditioningSetTimestepRange", conditioning=["ord", 0], start=0.5, end=1.0)
CONDITIONS = {
    "area": _combined(AREA, ["ord", 0]),
    "mask": _combined(MASKED, ["ord", 0], mask=halves()),
    "combined": _combined(text("a red disc"), ["mem", 0]),
    "timestep range": Feature(
        {
            "early": EARLY,
            "late": LATE,
            "pos": node("ConditioningCombine", conditioning_1=["early", 0], conditioning_2=["late", 0]),
        },
        {"positive": ["pos", 0]},
    ),
    "negative": Feature({"neg": text("a green ring")}, {"negative": ["neg", 0]}),
}
LATENTS = {
    "inpainting": Feature(
        {"hole": node("SetLatentNoiseMask", samples=["picture", 0], mask=["mask", 0])},
        {"latent_image": ["hole", 0]},
        lambda _: {"mask": halves()[1:], "picture": {"samples": picture()}},
    ),
    "image to image": Feature(
        {}, {"latent_image": ["picture", 0], "denoise": 0.8}, lambda _: {"picture": {"samples": picture()}}
    ),
    "batch index": Feature(
        {
            "many": node("EmptyLatentImage", width=8 * SIZE, height=8 * SIZE, batch_size=5),
            "some": node("LatentFromBatch", samples=["many", 0], batch_index=3, length=2),
        },
        {"latent_image": ["some", 0]},
    ),
}


def _thresholding(args: dict[str, Any]) -> torch.Tensor:
    """Dynamic thresholding as a CFG function: the guided picture may not reach further than the condition's."""
    uncond, cond = args["uncond"], args["cond"]
    guided = uncond + args["cond_scale"] * (cond - uncond)
    peak = lambda x: x.flatten(1).abs().quantile(0.99, dim=1).view(-1, 1, 1, 1)  # noqa: E731
    return guided * (peak(cond) / peak(guided)).clamp(max=1)


def _with(patch: str, function: Callable) -> Feature:
    def make(given: dict[str, Any]) -> dict[str, Any]:
        model = given["m"].clone()
        getattr(model, patch)(function)
        return {"own": model}

    return Feature({}, {"model": ["own", 0]}, make)


PATCHES = {
    "RescaleCFG": _through("RescaleCFG", multiplier=0.7),
    "perturbed attention": _through("PerturbedAttentionGuidance", scale=3.0),
    "dynamic thresholding": _with("set_model_sampler_cfg_function", _thresholding),
    "post-CFG function": _with("set_model_sampler_post_cfg_function", lambda args: 0.9 * args["denoised"]),
}

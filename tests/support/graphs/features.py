"""The host's features on the small lab, as ready parts of a prompt."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from comfy_extras.nodes_easycache import EasyCacheHolder

from support.graphs.checkpoint import BATCH, LINKS, SIZE, base, empty, text
from support.graphs.words import Host, Link, Node, Prompt, node

NEEDS_EASY_CACHE = pytest.mark.skipif(
    not hasattr(EasyCacheHolder, "check_metadata"), reason="this host's EasyCache fails on two images, without us too"
)


@dataclass(frozen=True)
class Feature:
    """A host feature: the nodes it needs, the links that lead through them, and what else it must be given."""

    nodes: Prompt = field(default_factory=dict)
    links: dict[str, Any] = field(default_factory=dict)
    make: Callable[[dict[str, Any]], dict[str, Any]] = lambda given: {}

    def prompt(self, **more: Node) -> Prompt:
        return {**base(), **self.nodes, **more}

    def inputs(self) -> dict[str, Any]:
        return {**LINKS, **self.links}

    def given(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        return {**checkpoint, **self.make(checkpoint)}


def _through(class_type: str, **inputs: Any) -> Feature:
    return Feature({"p": node(class_type, model=["m", 0], **inputs)}, {"model": ["p", 0]})


def _combined(one: Node, other: Link, **more: Any) -> Feature:
    """A positive prompt made of two."""
    nodes = {"one": one, "pos": node("ConditioningCombine", conditioning_1=["one", 0], conditioning_2=other)}
    return Feature(nodes, {"positive": ["pos", 0]}, lambda _: more)


def halves() -> torch.Tensor:
    mask = torch.zeros(2, SIZE, SIZE)
    mask[0, :, : SIZE // 2] = 1
    mask[1, : SIZE // 2] = 1
    return mask


def image(batch: int = BATCH) -> torch.Tensor:
    return torch.randn(batch, 4, SIZE, SIZE, generator=torch.manual_seed(11))


def encoded(host: Host, given: dict[str, Any], captions: list[str]) -> list:
    nodes = {str(i): text(c) for i, c in enumerate(captions)}
    out = host.run(nodes, given)
    return [[torch.cat([out[str(i)][0][0][0] for i in range(len(captions))]), {}]]


AREA = node("ConditioningSetAreaPercentage", conditioning=["mem", 0], width=0.6, height=1.0, x=0.4, y=0.0, strength=1.0)
MASKED = node("ConditioningSetMask", conditioning=["mem", 0], mask=["mask", 0], strength=1.0, set_cond_area="default")
EARLY = node("ConditioningSetTimestepRange", conditioning=["mem", 0], start=0.0, end=0.5)
LATE = node("ConditioningSetTimestepRange", conditioning=["ord", 0], start=0.5, end=1.0)
BOTH = node("ConditioningCombine", conditioning_1=["early", 0], conditioning_2=["late", 0])
CONDITIONS = {
    "area": _combined(AREA, ["ord", 0]),
    "mask": _combined(MASKED, ["ord", 0], mask=halves()),
    "combined": _combined(text("a red disc"), ["mem", 0]),
    "timestep range": Feature({"early": EARLY, "late": LATE, "pos": BOTH}, {"positive": ["pos", 0]}),
    "negative": Feature({"neg": text("a green ring")}, {"negative": ["neg", 0]}),
}
LATENTS = {
    "inpainting": Feature(
        {"hole": node("SetLatentNoiseMask", samples=["image", 0], mask=["mask", 0])},
        {"latent_image": ["hole", 0]},
        lambda _: {"mask": halves()[1:], "image": {"samples": image()}},
    ),
    "image to image": Feature(
        {}, {"latent_image": ["image", 0], "denoise": 0.8}, lambda _: {"image": {"samples": image()}}
    ),
    "batch index": Feature(
        {"many": empty(5), "some": node("LatentFromBatch", samples=["many", 0], batch_index=3, length=2)},
        {"latent_image": ["some", 0]},
    ),
}


def _thresholding(args: dict[str, Any]) -> torch.Tensor:
    """Dynamic thresholding as a CFG function: the guided image may not reach further than the condition's."""
    uncond, cond = args["uncond"], args["cond"]
    guided = uncond + args["cond_scale"] * (cond - uncond)
    peak = lambda x: x.flatten(1).abs().quantile(0.99, dim=1).view(-1, 1, 1, 1)  # noqa: E731
    return guided * (peak(cond) / peak(guided)).clamp(max=1)


def with_patch(patch: str, function: Callable) -> Feature:
    def make(given: dict[str, Any]) -> dict[str, Any]:
        model = given["m"].clone()
        getattr(model, patch)(function)
        return {"own": model}

    return Feature({}, {"model": ["own", 0]}, make)


PATCHES = {
    "RescaleCFG": _through("RescaleCFG", multiplier=0.7),
    "perturbed attention": _through("PerturbedAttentionGuidance", scale=3.0),
    "dynamic thresholding": with_patch("set_model_sampler_cfg_function", _thresholding),
    "post-CFG function": with_patch("set_model_sampler_post_cfg_function", lambda args: 0.9 * args["denoised"]),
}

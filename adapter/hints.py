"""Hints for users whose graph gives the measurement another meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..mitigation import published_settings as published
from .errors import GuardError, dims
from .two_predictions import parameterisation

FILLED_NEGATIVE = (
    "Hint: `negative` is not empty and `null` is not connected, so your prompt was compared with your negative prompt "
    "instead of with no prompt at all. Connect an empty CLIP Text Encode to `null` to measure as the papers do."
)
DISTILLED = (
    "Hint: `model` is guidance-distilled (it takes the guidance scale as an input, as Flux dev does). At cfg 1 it has "
    "no second prediction, so the papers' magnitude d is not defined: the values only say how far the prompt and the "
    "negative prompt are apart, and thresholds of other models do not apply."
)
SD_LATENT = (4, 64, 64)  # of an image of 512×512 pixels
TEXT_INPUTS = ("text", "string", "prompt", "value")  # prefixes of the inputs that hold a prompt's text
Graph = dict[str, dict[str, Any]]


def negative_hint(graph: Graph | None, node_id: str | None, null: list | None) -> list[str]:
    """FILLED_NEGATIVE in a list, or an empty list.

    `graph`: what runs, in the host's API format. It holds the text, which a CONDITIONING does not.
    """
    if null is not None or not graph or node_id not in graph:
        return []
    return [FILLED_NEGATIVE] if _has_text(graph, graph[node_id]["inputs"].get("negative")) else []


def _has_text(graph: Graph, link: Any) -> bool:
    """Whether any text goes into the conditioning behind `link`."""
    to_visit, seen = [(link, False)], set[str]()
    while to_visit:
        link, is_text = to_visit.pop()
        if isinstance(link, str):
            if is_text and link.strip():
                return True
            continue
        if not isinstance(link, list) or link[0] in seen or link[0] not in graph:
            continue
        seen.add(link[0])
        node = graph[link[0]]
        if node["class_type"] == "ConditioningZeroOut":  # its output does not depend on the text
            continue
        for name, value in node["inputs"].items():
            if name.startswith(TEXT_INPUTS):
                to_visit.append((value, True))
            elif name.startswith(("conditioning", "negative")):
                to_visit.append((value, False))
    return False


def preset_notes(
    table: Mapping[str, published.Settings], preset: str, model: ModelPatcher, samples: Tensor | None, node: str
) -> list[str]:
    """What the preset sets, and where this model or size differs from the paper's. Empty for `custom`.

    Raises GuardError for a flow model, on which timesteps and constants of Stable Diffusion have no meaning.
    """
    told = published.sentence(table, preset)
    if not told:
        return []
    kind = parameterisation(model.get_model_object("model_sampling"))[0]
    if kind == "flow":
        raise GuardError(
            f"{node}: `preset` {preset} is for Stable Diffusion, and `model` is a flow model (such as SD 3 or Flux), "
            "which has no such timesteps. Set `preset` to custom and use Calibrate Thresholds."
        )
    if samples is not None and tuple(samples.shape[1:]) != SD_LATENT:
        here = dims(samples.shape[1:])
        told.append(
            f"Hint: the preset's values were found on latents of {dims(SD_LATENT)} (512×512); here it is {here}."
        )
    return told


def distilled_hint(model: ModelPatcher) -> list[str]:
    """DISTILLED in a list if the model's network has a guidance embedding, or an empty list."""
    config = getattr(model.model, "model_config", None)
    network = getattr(config, "unet_config", None) or {}
    return [DISTILLED] if network.get("guidance_embed", False) else []

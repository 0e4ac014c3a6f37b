"""Hints for users whose graph gives the measurement another meaning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..mitigation import published_settings as published
from .errors import GuardError, dims
from .live_view import executing_context, server
from .two_predictions import parameterisation

FILLED_NEGATIVE = (
    "Hint: `negative` is not empty, so the prompt was compared with it, and a memorized prompt may be missed. Connect "
    "an empty CLIP Text Encode to `null`."
)
DISTILLED = (
    "Hint: `model` is guidance-distilled, like Flux dev. Here d only compares the prompt with the negative prompt, and "
    "other models' thresholds do not apply."
)
FILLED_NEGATIVE_GUIDANCE = (
    "Hint: the sampler's `negative` is not empty, so guidance is measured against it and not as in the paper. If "
    "copies remain, leave it empty."
)
STEERED = (
    "If AMG Guidance used these references, it has lowered this very metric. Check with another metric, too, such as "
    "descriptor with SSCD."
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


def negative_hint_behind(node_id: str | None, null: list | None) -> list[str]:
    """The same for a model patch: FILLED_NEGATIVE if a sampler behind it has a filled `negative`."""
    return [FILLED_NEGATIVE] if null is None and _filled_behind(running_graph(), node_id) else []


def guidance_negative_hint(node_id: str | None) -> list[str]:
    """FILLED_NEGATIVE_GUIDANCE in a list if a sampler behind the patch has a filled `negative`."""
    return [FILLED_NEGATIVE_GUIDANCE] if _filled_behind(running_graph(), node_id) else []


def steered_note(graph: Graph | None, node_id: str | None) -> list[str]:
    """STEERED in a list if AMG Guidance guided what made the `images` of this node, until its metric said no."""
    own = (graph or {}).get(node_id or "", {"inputs": {}})["inputs"]
    return [STEERED] if made_through(graph, own.get("images"), ("MG_AMGGuidance", "MG_Guard")) else []


def made_through(graph: Graph | None, link: Any, kinds: Sequence[str]) -> bool:
    """Whether a node of one of these kinds has to run before the link has a value."""
    to_visit, seen = [link], set[str]()
    while to_visit and graph:
        here = to_visit.pop()
        if not isinstance(here, list) or not here or (name := str(here[0])) in seen or name not in graph:
            continue
        seen.add(name)
        if graph[name]["class_type"] in kinds:
            return True
        to_visit += graph[name]["inputs"].values()
    return False


def running_graph() -> Graph | None:
    """What the host runs now. A patch that comes out of the cache was made for an earlier graph."""
    context, queue = executing_context(), getattr(server(), "prompt_queue", None)
    running = list(getattr(queue, "currently_running", {}).values()) if context else []
    return next((item[2] for item in running if item[1] == context.prompt_id), None)


def _filled_behind(graph: Graph | None, node_id: str | None) -> bool:
    """Whether the first node with a `negative` on some way out of this node gets any text there."""
    if not graph or node_id is None:
        return False
    to_visit, seen = [str(node_id)], set[str]()
    while to_visit:
        here = to_visit.pop()
        seen.add(here)
        for name, node in graph.items():
            links = [value for value in node["inputs"].values() if isinstance(value, list) and value]
            if name in seen or all(link[0] != here for link in links):
                continue
            if "negative" not in node["inputs"]:
                to_visit.append(name)
            elif _has_text(graph, node["inputs"]["negative"]):
                return True
    return False


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
            f"Hint: the preset was made for latents of {dims(SD_LATENT)} (512×512 pixels), but these are {here}."
        )
    return told


def size_hint(name: str, value: float, default: float, shape: Sequence[int]) -> list[str]:
    """A hint in a list if the input `name` has its default and latents are not of the size that this is for."""
    if value != default or math.prod(shape) == math.prod(SD_LATENT):
        return []
    return [
        f"Hint: the default {default:g} of `{name}` was chosen for latents of {dims(SD_LATENT)} (512×512 pixels), but "
        f"these are {dims(shape)}. Use Calibrate Thresholds at this size."
    ]


def distilled_hint(model: ModelPatcher) -> list[str]:
    """DISTILLED in a list if the model's network has a guidance embedding, or an empty list."""
    config = getattr(model.model, "model_config", None)
    network = getattr(config, "unet_config", None) or {}
    return [DISTILLED] if network.get("guidance_embed", False) else []

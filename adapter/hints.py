"""Hints for an artist whose graph makes the measurement mean something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

FILLED_NEGATIVE = (
    "Hint: `negative` is not empty and `null` is not connected, so your prompt was compared with your negative prompt "
    "instead of with no prompt at all. Connect an empty CLIP Text Encode to `null` to get the papers' measure."
)
DISTILLED = (
    "Hint: `model` is guidance-distilled (it takes the guidance scale as an input, as Flux dev does). At cfg 1 no "
    "second prediction guides it, so the papers' magnitude d is not defined: the figures only say how far prompt "
    "and negative prompt are apart, and thresholds made for other models do not carry over."
)
TEXT_INPUTS = ("text", "string", "prompt", "value")  # prefixes of the inputs that hold a prompt's words
Graph = dict[str, dict[str, Any]]


def negative_hint(graph: Graph | None, node_id: str | None, null) -> list[str]:
    """FILLED_NEGATIVE in a list, or an empty list. `graph`: what runs, in the host's API format.

    A CONDITIONING does not hold its text, but the graph does.
    """
    if null is not None or not graph or node_id not in graph:
        return []
    return [FILLED_NEGATIVE] if _has_text(graph, graph[node_id]["inputs"].get("negative")) else []


def _has_text(graph: Graph, link: Any) -> bool:
    """Whether any words go into the conditioning behind `link`. Visits every node once."""
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
        if node["class_type"] == "ConditioningZeroOut":  # its output does not depend on the words
            continue
        for name, value in node["inputs"].items():
            if name.startswith(TEXT_INPUTS):
                to_visit.append((value, True))
            elif name.startswith(("conditioning", "negative")):
                to_visit.append((value, False))
    return False


def is_distilled(model: ModelPatcher) -> bool:
    """Whether the host built this model's network with a guidance embedding."""
    config = getattr(model.model, "model_config", None)
    return bool((getattr(config, "unet_config", None) or {}).get("guidance_embed", False))


def distilled_hint(model: ModelPatcher) -> list[str]:
    """DISTILLED in a list, or an empty list."""
    return [DISTILLED] if is_distilled(model) else []

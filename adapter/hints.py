"""Hints for users whose graph gives the measurement another meaning."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher

FILLED_NEGATIVE = (
    "Hint: `negative` is not empty and `null` is not connected, so your prompt was compared with your negative prompt "
    "instead of with no prompt at all. Connect an empty CLIP Text Encode to `null` to measure as the papers do."
)
DISTILLED = (
    "Hint: `model` is guidance-distilled (it takes the guidance scale as an input, as Flux dev does). At cfg 1 it has "
    "no second prediction, so the papers' magnitude d is not defined: the values only say how far the prompt and the "
    "negative prompt are apart, and thresholds of other models do not apply."
)
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


def distilled_hint(model: ModelPatcher) -> list[str]:
    """DISTILLED in a list if the model's network has a guidance embedding, or an empty list."""
    config = getattr(model.model, "model_config", None)
    network = getattr(config, "unet_config", None) or {}
    return [DISTILLED] if network.get("guidance_embed", False) else []

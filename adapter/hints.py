"""A hint for a filled negative prompt that stands in for the empty one."""

from __future__ import annotations

HINT = (
    "Hint: `negative` is not empty and `null` is not connected, so your prompt was compared with your negative prompt "
    "instead of with no prompt at all. Connect an empty CLIP Text Encode to `null` for the papers' measure."
)


def negative_hint(prompt: dict | None, node_id: str | None, null) -> list[str]:
    """HINT in a list, or an empty list. `prompt`: the graph that runs, in the host's API format.

    A CONDITIONING does not say what its text was; the graph does, as long as the text is typed in.
    """
    if null is not None or not prompt or node_id not in prompt:
        return []
    return [HINT] if _text(prompt, prompt[node_id]["inputs"].get("negative")).strip() else []


def _text(prompt: dict, link, depth: int = 0) -> str:
    """The text that was typed in at the node behind a link, or further up."""
    if not isinstance(link, list) or link[0] not in prompt or depth > 20:
        return ""
    node = prompt[link[0]]
    if node["class_type"] == "ConditioningZeroOut":  # what was typed in is not what comes out
        return ""
    inputs = node["inputs"]
    typed = [v for k, v in inputs.items() if k.startswith("text") and isinstance(v, str)]
    further = [_text(prompt, v, depth + 1) for k, v in inputs.items() if k.startswith(("conditioning", "negative"))]
    return " ".join([*typed, *further])

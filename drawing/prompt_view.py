"""What Prompt Check shows: the prompt with the words that pull in colour, and the rewordings by their pull."""

from __future__ import annotations

from collections.abc import Sequence

from ..mitigation.prompt_words import PromptPulls
from .node_views import View, text_view


def words_view(found: PromptPulls, threshold: float, hints: Sequence[str]) -> View:
    """`threshold`: the pull from which a prompt counts as memorized. Below it no word is coloured."""
    memorized = found.pull >= threshold
    warning = (
        f"Memorized prompt: its pull is {found.pull:.4f}, above the threshold {threshold:.4f}." if memorized else ""
    )
    if not memorized:
        headline = f"No word stands out: the pull is {found.pull:.4f}, below the threshold {threshold:.4f}."
    elif found.words:
        worst = found.ranked[0]
        headline = f'"{found.word(worst)}" pulls most. Without it the pull is {found.without[worst]:.4f}.'
    else:
        headline = "The prompt has no words that could be left out."
    notes = [
        f"- {found.word(i)} pulls {found.shares[i]:.4f}; the prompt without it, {found.without[i]:.4f}"
        for i in found.ranked
    ]
    if found.rewordings:
        notes += ["Rewordings, those that pull least first:"]
        notes += [f"- {pull:.4f}  {text}" for pull, text in found.rewordings]
    view = text_view("\n".join([headline, *notes, *hints]), warning)
    most = max(found.shares, default=0.0)
    at = 0
    for word, share in zip(found.words, found.shares, strict=True):
        view["words"].append({"text": found.text[at : word[0]], "share": 0.0})
        coloured = max(share, 0.0) / most if memorized and most > 0 else 0.0
        view["words"].append({"text": found.text[slice(*word)], "share": round(coloured, 2)})
        at = word[1]
    view["words"].append({"text": found.text[at:], "share": 0.0})
    view["words"] = [piece for piece in view["words"] if piece["text"]]
    return view

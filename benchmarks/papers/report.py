"""report.md: what was run, a table a group, and what the papers report."""

from collections.abc import Sequence
from typing import Any

from ..cases import MEMORIZED, Case
from ..report import columns, table, told
from ..scorers import Scorers
from ..scores import Row

NOTES = """- Intervals: 95 %, prompts and their images drawn anew 1,000 times. What is marked × is a median of ratios to
  the image of the same prompt and noise without mitigation. A backward pass is not counted as an evaluation.
- What the papers report: docs/protocol.md. Other prompts, seeds, preprocessing or scorers give other numbers: compare
  within one report first.
- This pack's own tests run this protocol on a small model made to memorize, with stand-in scorers; it was published
  without having been run on Stable Diffusion weights."""

STAND_INS = "**These are stand-ins for a lab checkpoint: the numbers say nothing about Stable Diffusion.**"


def markdown(facts: dict[str, Any], rows: Sequence[Row], scorers: Scorers) -> str:
    parts = ["# The papers' protocol", _what(facts) + "\n" + NOTES, "## Scorers", _scored_by(scorers)]
    for group in dict.fromkeys(r["group"] for r in rows):
        own = [r for r in rows if r["group"] == group]
        parts += [f"## {group[0].upper()}{group[1:]} prompts", table(own, columns(scorers))]
        if scorers.copies and any(r["images_compared"] < r["images"] for r in own):
            parts.append("Copies are counted only among images whose prompt has a training image.")
        if any(r["peer"] for r in own):
            parts.append("\\* as the authors released it, not a method of this pack.")
    if nodes := told([r for r in rows if r["group"] == MEMORIZED]):
        parts += ["## What the nodes reported", "Means over the memorized prompts.", nodes]
    return "\n\n".join(parts) + "\n"


def kinds(memorized: Sequence[Case]) -> str:
    """One line on the split of the memorized prompts."""
    held = [c.kind for c in memorized]
    if not any(held):
        return (
            "verbatim and template prompts are not told apart: the prompts file does not say which are which "
            "(overfit_type), and no --verbatim was given. Template prompts dilute every mean."
        )
    counts = ", ".join(f"{held.count(k)} {k or 'of unknown kind'}" for k in dict.fromkeys(held))
    return f"memorized prompts by kind: {counts}"


def _what(facts: dict[str, Any]) -> str:
    plan, nobody = facts["plan"], "none given, so the cost to ordinary prompts is unknown"
    lines = [
        f"checkpoint: {facts['checkpoint']}, constants for {facts['constants']}, on {facts['device']}",
        f"{plan['images']} images a prompt, {plan['size']}×{plan['size']}, {plan['steps']} steps, "
        f"CFG {plan['cfg']:g}, sampler {plan['sampler']}, scheduler {plan['scheduler']}, "
        f"seed {plan['seed']} + the prompt's position in its file",
        f"memorized prompts: {facts['prompts']}; {facts['matched']}",
        f"ordinary prompts: {facts['ordinary'] or nobody}",
        facts["kinds"],
        *(f"**{name}** failed and is incomplete or missing: {why}" for name, why in facts["failed"].items()),
        *facts["left_out"],
    ]
    return "\n".join(f"- {line}" for line in lines)


def _scored_by(scorers: Scorers) -> str:
    lines = [*scorers.used, *(f"not measured: {reason}" for reason in scorers.missed)]
    lines += [STAND_INS] if scorers.stand_ins else []
    return "\n".join(f"- {line}" for line in lines)

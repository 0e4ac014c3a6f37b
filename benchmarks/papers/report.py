"""results.json, and report.md: a table a group, beside what the papers report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cases import MEMORIZED
from .scorers import Scorers

# As far as they are known here (docs/protocol.md); ImageReward is not measured by this protocol.
REPORTED = [
    "Han et al., per-sample, l_target 0.9, SD 1.4, 500 prompts × 10 pictures: SSCD 0.2265 (mean), CLIP 0.2647, "
    "LPIPS 0.7615, ImageReward −0.352. Per picture on an A100: none 1.85 s, batch-wise 2.01 s, per-sample 2.80 s.",
    "Chen et al. (AMG), SD: 44.85 % of pictures above 0.5 SSCD without mitigation, 0.00 % with Main; CLIP 28.04 → "
    "26.98; Strong 0.00 % even above 0.4, CLIP 26.72.",
]
Rows = list[dict[str, Any]]


def write(out: Path, facts: dict[str, Any], rows: Rows, scorers: Scorers) -> None:
    (out / "results.json").write_text(json.dumps({"facts": facts, "rows": rows}, indent=1), encoding="utf-8")
    (out / "report.md").write_text(markdown(facts, rows, scorers), encoding="utf-8")


def markdown(facts: dict[str, Any], rows: Rows, scorers: Scorers) -> str:
    parts = ["# The papers' protocol", "", *_what(facts), "", "## Scorers", "", *_scored_by(scorers), ""]
    for group in dict.fromkeys(r["group"] for r in rows):
        parts += [
            f"## {group[0].upper()}{group[1:]} prompts",
            "",
            *_table([r for r in rows if r["group"] == group], scorers),
            "",
        ]
    if told := _told(rows):
        parts += ["## What the nodes told", "", "Means over the memorized prompts.", "", *told, ""]
    reported = "Other prompts, seeds, preprocessing or scorers make other numbers: compare within one report first."
    parts += ["## What the papers report", "", reported, "", *[f"- {line}" for line in REPORTED], ""]
    return "\n".join(parts)


def _what(facts: dict[str, Any]) -> list[str]:
    plan, nobody = facts["plan"], "none given: what a method costs those who had no problem is unknown"
    lines = [
        f"- checkpoint: {facts['checkpoint']}, constants for {facts['constants']}, on {facts['device']}",
        f"- {plan['images']} pictures a prompt, {plan['size']}×{plan['size']}, {plan['steps']} steps, "
        f"CFG {plan['cfg']:g}, sampler {plan['sampler']}, scheduler {plan['scheduler']}, "
        f"seed {plan['seed']} + the prompt's place in its file",
        f"- memorized prompts: {facts['prompts']}; {facts['matched']}",
        f"- ordinary prompts: {facts['ordinary'] or nobody}",
        f"- {facts['kinds']}",
        *(f"- **{name}** failed and is incomplete or missing: {why}" for name, why in facts["failed"].items()),
        *(f"- {line}" for line in facts["left_out"]),
    ]
    return [
        *lines,
        "- Intervals: 95 %, prompts drawn anew 1,000 times. Time and evaluations × are medians over the same prompts "
        "without mitigation. A backward pass is not counted as an evaluation.",
        "- This pack's own tests run this protocol on a small model made to memorize, with stand-in scorers; it was "
        "published without having been run on Stable Diffusion weights.",
    ]


def _scored_by(scorers: Scorers) -> list[str]:
    lines = [f"- {name}" for name in scorers.used] + [f"- not measured: {reason}" for reason in scorers.missed]
    if scorers.stand_ins:
        lines.append(
            "- **These are stand-ins for the lab checkpoint: the numbers say nothing about Stable Diffusion.**"
        )
    return lines


def _table(rows: Rows, scorers: Scorers) -> list[str]:
    copies, alignment, diversity = scorers.copies, scorers.alignment, scorers.diversity
    similar = "1 − RMSE" if scorers.stand_ins else "SSCD"
    share = _percent if alignment is not None and alignment.yes_or_no else _score
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "method": lambda r: r["method"] + (" \\*" if r["peer"] else ""),
        "prompts": lambda r: str(r["prompts"]),
        "pictures": lambda r: str(r["pictures"]),
    }
    if copies is not None:
        columns |= {
            f"copies ({copies.label})": lambda r: _percent(r["copies"]),
            f"{similar} mean": lambda r: _score(r["similarity"]),
            "95th percentile": lambda r: _number(r["similarity_95th"], 3),
            "max": lambda r: _number(r["similarity_most"], 3),
        }
    if alignment is not None:
        columns[alignment.label] = lambda r: share(r["aligned"])
    if diversity is not None:
        columns[f"diversity ({diversity.label})"] = lambda r: _score(r["diversity_interval"])
    columns |= {
        "unchanged": lambda r: "" if r["unchanged"] is None else f"{r['unchanged']:.0%}",
        "evaluations a picture": lambda r: _number(r["evaluations_per_picture"], 1),
        "evaluations ×": lambda r: _number(r["evaluations"], 2),
        "time ×": lambda r: _number(r["time"], 2),
    }
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(cell(r) for cell in columns.values()) + " |" for r in rows]
    compared = sum(r["pictures"] - r["pictures_compared"] for r in rows) if copies is not None else 0
    if compared:
        lines += ["", "Copies are counted only among pictures whose prompt has a training image."]
    if any(r["peer"] for r in rows):
        lines += ["", "\\* as the authors released it, not a method of this pack."]
    return lines


def _told(rows: Rows) -> list[str]:
    chosen = [r for r in rows if r["group"] == MEMORIZED and r["told"]]
    names = {
        "without_cfg": "steps without CFG",
        "d_before": "d before",
        "d_after": "d after",
        "reached": "reached",
        "iterations": "iterations",
        "std": "noise std",
    }
    names = {k: v for k, v in names.items() if any(k in r["told"] for r in chosen)}
    if not names:
        return []

    def cell(key: str, value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.0%}" if key in ("without_cfg", "reached") else f"{value:.3f}"

    lines = ["| method | " + " | ".join(names.values()) + " |", "|---" * (len(names) + 1) + "|"]
    return lines + [f"| {r['method']} | " + " | ".join(cell(k, r["told"].get(k)) for k in names) + " |" for r in chosen]


def _percent(value: Any) -> str:
    return "" if value is None else f"{value[0]:.1%} ({value[1]:.0%}–{value[2]:.0%})"


def _score(value: Any) -> str:
    return "" if value is None else f"{value[0]:.4f} ({value[1]:.3f}–{value[2]:.3f})"


def _number(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"

"""How well a prompt is told to be memorized, on the lab checkpoint: AUC and hits at 1 % false alarms.

One case is a prompt with one noise. `first d` and `first pull` cost one paired evaluation; the curve
of an unguided run costs one a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import mannwhitneyu

from lab import scenes
from support import graphs as prompts

from .study import Study, links

STEPS = 50
FALSE_ALARMS = 0.01
BATCH = 16


def ordinary_captions() -> list[str]:
    """Every caption that the lab's ordinary scenes had: 8 shapes, with no colour or one of 7."""
    plain = [f"a {shape}" for shape in scenes.SHAPES]
    return plain + [f"{scenes._article(c)} {shape}" for shape in scenes.SHAPES for c in scenes.COLOURS]


def measured(study: Study, texts: list[str], seeds: Sequence[int], steps: int = 1) -> dict[str, np.ndarray]:
    """Curves of the detector that never stops early: `d` and `pull` (cases, steps), one case a text and seed."""
    host, given = study.sampler.host, dict(study.sampler.given)
    clip = given["clip"]
    found: dict[str, list[np.ndarray]] = {"d": [], "pull": []}
    for at in range(0, len(texts), BATCH):
        part = texts[at : at + BATCH]
        given["asked"] = [[torch.cat([clip.encode_from_tokens(clip.tokenize(t)) for t in part]), {}]]
        for seed in seeds:
            inputs = {**links("asked"), "noise_seed": seed, "steps": STEPS, "memorized_threshold": 0.0}
            if steps > 1:  # it ends early only if all 16 fall to a hundredth
                node = prompts.detector(**{**inputs, "drop_ratio": 0.01})
                curve = host.run({"k": node}, given)["k"][3]
            else:  # one step: the shortest schedule that begins at T
                given["one"] = torch.tensor([float(given["model"].get_model_object("model_sampling").sigma_max), 0.0])
                curve = host.run({"k": prompts.detector(**inputs, sigmas=["one", 0])}, given)["k"][3]
            found["d"].append(curve.relative.numpy())
            found["pull"].append(curve.pull.numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def quality(memorized: np.ndarray, ordinary: np.ndarray) -> dict[str, float]:
    """AUC, and the share of memorized cases above what 1 % of the ordinary ones exceed. Scores (n,), (m,)."""
    auc = mannwhitneyu(memorized, ordinary).statistic / (len(memorized) * len(ordinary))
    limit = float(np.quantile(ordinary, 1 - FALSE_ALARMS, method="higher"))
    return {
        "auc": float(auc),
        "hits_at_1_percent": float((memorized > limit).mean()),
        "threshold": limit,
        "memorized": len(memorized),
        "ordinary": len(ordinary),
    }


def table(study: Study, seeds: Sequence[int], curve_seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One row a score. Whole curves cost 50 times as much as the first step and get seeds of their own."""
    works = [p.caption for p in scenes.memorized()]
    first = [measured(study, texts, seeds) for texts in (works, ordinary_captions())]
    rows = [
        {"score": name, "evaluations": 1, **quality(*(f[key][:, 0] for f in first))}
        for name, key in (
            ("guidance magnitude d of the first step", "d"),
            ("the detector: pull of the first step", "pull"),
        )
    ]
    curves = [measured(study, texts, curve_seeds, STEPS) for texts in (works, ordinary_captions())]
    for name, score in {
        "curve: mean pull of the first 10 steps": lambda c: np.nanmean(c["pull"][:, :10], axis=1),
        "curve: largest pull": lambda c: np.nanmax(c["pull"], axis=1),
        "curve: largest d": lambda c: np.nanmax(c["d"], axis=1),
    }.items():
        cost = 10 if "first 10" in name else STEPS
        rows.append({"score": name, "evaluations": cost, **quality(*(score(c) for c in curves))})
    return rows

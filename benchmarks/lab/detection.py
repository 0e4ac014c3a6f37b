"""How well a memorized prompt is recognised on the lab checkpoint: AUC, and hits at 1 % false alarms.

One case is a prompt with one noise. `first d` and `first pull` cost one paired evaluation; the curve of an unguided
run costs one a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import mannwhitneyu

from lab import scenes

from ..checkpoint import Checkpoint, node
from ..report import Column

FALSE_ALARMS = 0.01
BATCH = 16
COLUMNS = [
    Column("score", "score"),
    Column("evaluations", "paired evaluations", 0),
    Column("auc", "AUC", 4),
    Column("hits_at_1_percent", "hits at 1 % false alarms", 1, "%"),
    Column("memorized", "memorized cases", 0),
    Column("ordinary", "ordinary cases", 0),
]


def ordinary_captions() -> list[str]:
    """Every caption that the lab's ordinary scenes had: 8 shapes, without a colour or with one of 7."""
    plain = [f"a {shape}" for shape in scenes.SHAPES]
    return plain + [f"{scenes.with_article(c)} {shape}" for shape in scenes.SHAPES for c in scenes.COLOURS]


def measured(checkpoint: Checkpoint, texts: list[str], seeds: Sequence[int], steps: int = 1) -> dict[str, np.ndarray]:
    """`d` and `pull` (cases, steps) of the detector that never stops early; a case is a text with a seed."""
    plan, side, found = checkpoint.plan, checkpoint.plan.size // 8, {"d": [], "pull": []}
    sigma_max = float(checkpoint.model.get_model_object("model_sampling").sigma_max)
    links = {k: [k, 0] for k in ("model", "positive", "negative", "latent_image")}
    for at in range(0, len(texts), BATCH):
        part = texts[at : at + BATCH]
        given = {"model": checkpoint.model, "latent_image": {"samples": torch.zeros(len(part), 4, side, side)}}
        given |= {"positive": checkpoint.encode(part), "negative": checkpoint.encode([""])}
        given["one_step"] = torch.tensor([sigma_max, 0.0])
        # A ratio that no pull reaches before all 16 fall to a hundredth keeps the detector running.
        own = {"steps": plan.steps, "scheduler": plan.scheduler, "memorized_threshold": 0.0, "drop_ratio": 0.01}
        own |= {"rule": "sharp drop"} | ({"sigmas": ["one_step", 0]} if steps == 1 else {})
        for seed in seeds:
            detector = node("MG_BasinEscapeDetector", **links, **own, noise_seed=seed)
            curve = checkpoint.host.run({"k": detector}, given)["k"][3]
            found["d"].append(curve.relative.numpy())
            found["pull"].append(curve.pull.numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def quality(memorized: np.ndarray, ordinary: np.ndarray) -> dict[str, float]:
    """AUC, and the share of memorized cases above what 1 % of the ordinary ones exceed. Scores (n,), (m,)."""
    counts = {"memorized": len(memorized), "ordinary": len(ordinary)}
    auc = float(mannwhitneyu(memorized, ordinary).statistic) / (len(memorized) * len(ordinary))
    limit = float(np.quantile(ordinary, 1 - FALSE_ALARMS, method="higher"))
    return {"auc": auc, "hits_at_1_percent": float((memorized > limit).mean()), "threshold": limit, **counts}


def detection(checkpoint: Checkpoint, memorized: list[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One row a score. Whole curves cost 50 times as much as the first step, so they get an eighth of the seeds."""
    steps, groups = checkpoint.plan.steps, (memorized, ordinary_captions())
    first = [measured(checkpoint, texts, seeds) for texts in groups]
    curves = [measured(checkpoint, texts, seeds[: -(-len(seeds) // 8)], steps) for texts in groups]
    scores = {
        "guidance magnitude d of the first step": (1, [f["d"][:, 0] for f in first]),
        "the detector: pull of the first step": (1, [f["pull"][:, 0] for f in first]),
        "curve: mean pull of the first 10 steps": (10, [np.nanmean(c["pull"][:, :10], axis=1) for c in curves]),
        "curve: largest pull": (steps, [np.nanmax(c["pull"], axis=1) for c in curves]),
        "curve: largest d": (steps, [np.nanmax(c["d"], axis=1) for c in curves]),
    }
    return [{"score": name, "evaluations": cost, **quality(*held)} for name, (cost, held) in scores.items()]

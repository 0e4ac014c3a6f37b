"""Nodes of the pack on the lab checkpoint, 16 captions a batch, scored: copies, alignment, quality, cost.

What the tables of docs/ stand on (benchmarks/tables.py). Its pictures are kept in a folder, so that an
interrupted table goes on where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab import scenes, vae
from lab.copies import COPY_RMSE, rmse
from lab.judge import Judge, frechet, reference
from support import bootstrap
from support import graphs as prompts

from .score import Sampler, captions

REFERENCES = 512
STEPS = 50
Prompt = dict[str, dict[str, Any]]


def links(group: str) -> dict[str, Any]:
    conds = {"positive": [group, 0], "negative": ["null", 0]}
    return {"model": ["model", 0], **conds, "latent_image": ["latent", 0]}


def deferred(mode: str, group: str = "memorized", **changed: Any) -> dict[str, Any]:
    return prompts.deferred(mode, **{**links(group), "steps": STEPS, **changed})


def optimizer(method: str = "per-sample", group: str = "memorized", **changed: Any) -> dict[str, Any]:
    return prompts.optimizer(method, **{**links(group), **changed})


def references(copies: int = 1) -> dict[str, Any]:
    """The 16 training pictures and captions, every pair so many times, as the images given as `works`."""
    lines = "\n".join([p.caption for p in scenes.memorized()] * copies)
    inputs = {"images": [f"works{copies}", 0], "captions": lines, "metric": "latent", "vae": ["vae", 0]}
    return {"class_type": "MG_ReferencesFromImages", "inputs": inputs}


def amg(**changed: Any) -> dict[str, Any]:
    own = {
        "despecification": 13.0,
        "deduplication": 0.0,
        "dissimilarity": 10.0,
        "threshold_min": 0.5,
        "threshold_max": 0.6,
        "threshold_schedule": "parabolic",
        "gradient": "through prediction",
    }
    links = {"model": ["model", 0], "references": ["r", 0], "clip": ["clip", 0]}
    return {"class_type": "MG_AMGGuidance", "inputs": {**links, **own, **changed}}


@dataclass
class Row:
    """Means over 16 captions × seeds; NaN where a column does not apply."""

    name: str
    pictures: int
    copies: float
    aligned: float  # shape and colour are what the caption asks for
    shape: float
    colour: float
    quality: float  # Fréchet distance to the generator's pictures for the same captions; smaller is better
    without_cfg: float  # share of steps
    std: float = float("nan")
    d_before: float = float("nan")  # relative
    d_after: float = float("nan")
    reached: float = float("nan")
    iterations: float = float("nan")


class Study:
    """Runs prompts whose node `k` samples, for several seeds, and scores what comes out."""

    def __init__(self, work: Path, seeds: int) -> None:
        self.work, self.seeds = work, seeds
        work.mkdir(parents=True, exist_ok=True)
        self.judge, self._sampler = Judge.load(), None
        self.pairs = scenes.memorized()
        self.texts = captions()
        self._targets: dict[str, np.ndarray] = {}

    @property
    def sampler(self) -> Sampler:
        if self._sampler is None:
            self._sampler = Sampler()
            self._sampler.host.load_pack("memorization_guard", bootstrap.ROOT)
            works = torch.from_numpy(np.stack([p.scene.image for p in self.pairs])).float() / 255
            self._sampler.given |= {f"works{n}": works.repeat(n, 1, 1, 1) for n in (1, 3)}
        return self._sampler

    def row(self, name: str, prompt: Prompt, group: str = "memorized") -> Row:
        """The scored row; pictures that are in the folder are not sampled again."""
        runs = [self._kept(name, prompt, seed) for seed in range(1, self.seeds + 1)]
        return self.score(name, np.concatenate([r[0] for r in runs]), group, [r[1] for r in runs])

    def _kept(self, name: str, prompt: Prompt, seed: int) -> tuple[np.ndarray, dict[str, float]]:
        file = self.work / f"{name.replace('/', '-')}-{seed}.npz"
        if not file.is_file():
            pictures, told = self._run(prompt, seed)
            np.savez(file, pictures=pictures, **told)
        held = np.load(file)
        return held["pictures"], {k: float(held[k]) for k in held.files if k != "pictures"}

    def generator(self, name: str, group: str = "memorized") -> Row:
        """The same scores for the generator's own pictures through the VAE: what a perfect model gets."""
        own = vae.through(reference(self.texts[group], 16 * self.seeds, seed=2))
        return self.score(name, own, group, [])

    def _run(self, prompt: Prompt, seed: int) -> tuple[np.ndarray, dict[str, float]]:
        seeded = {k: {**n, "inputs": _with_seed(n["inputs"], seed)} for k, n in prompt.items()}
        out = self.sampler.host.run(seeded, self.sampler.given)
        with torch.inference_mode():
            pictures = (self.sampler.vae.decode(out["k"][0]["samples"]) * 255).round().byte().numpy()
        told: dict[str, float] = {"share": float(out["k"][1].transition.float().mean()) / STEPS}
        if "n" in out:
            report = out["n"][1]
            told |= {"std": float(report.std.mean()), "d_before": float(report.relative(report.before).mean())}
            told |= {"d_after": float(report.relative(report.after).mean())}
            told |= {"reached": float(report.reached.float().mean())}
            told |= {"iterations": float(report.iterations.float().mean())}
        return pictures, told

    def score(self, name: str, pictures: np.ndarray, group: str, told: list[dict[str, float]]) -> Row:
        texts = self.texts[group]
        found = self.judge.alignment(pictures, texts * (len(pictures) // len(texts)))
        if group not in self._targets:
            self._targets[group] = self.judge.judge(vae.through(reference(texts, REFERENCES, seed=1))).features
        near = [min(rmse(p, q.scene.image) for q in self.pairs) for p in pictures]

        def mean(key: str) -> float:
            return float(np.mean([t[key] for t in told])) if told and key in told[0] else float("nan")

        return Row(
            name,
            len(pictures),
            float(np.mean(np.array(near) < COPY_RMSE)),
            float(found.aligned.mean()),
            float(found.shape.mean()),
            float(np.nanmean(found.colour)),
            frechet(self.judge.judge(pictures).features, self._targets[group]),
            mean("share"),
            *(mean(k) for k in ("std", "d_before", "d_after", "reached", "iterations")),
        )


def _with_seed(inputs: dict[str, Any], seed: int) -> dict[str, Any]:
    return {k: seed if k in ("seed", "noise_seed") else v for k, v in inputs.items()}

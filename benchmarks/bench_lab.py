"""Measure methods on the lab checkpoint: pictures, evaluations and time of a seed; scores with intervals."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab import scenes, vae
from lab.copies import COPY_RMSE, rmse
from lab.judge import diversity, frechet, reference
from support.lab_pack.meter import Meter

from .lab_methods import NONE, Method
from .study import Study, _with_seed

RESAMPLES = 1000
PROMPTS = 16
Interval = tuple[float, float, float]  # estimate, and the bounds of 95 %


@dataclass
class Run:
    """One method, one group, one seed: 16 pictures, one a prompt."""

    pictures: np.ndarray
    rows: float  # model evaluations a picture
    seconds: float  # of CPU


class Bench(Study):
    """Runs what is not yet in the folder `work` and keeps it there."""

    def __init__(self, work: Path) -> None:
        super().__init__(work, 0)
        self.meter = Meter()

    @property
    def sampler(self) -> Any:
        fresh = self._sampler is None
        sampler = super().sampler
        if fresh:
            metered = sampler.given["model"].clone()
            metered.set_model_unet_function_wrapper(self.meter)
            sampler.given["model"] = metered
        return sampler

    def warm(self) -> None:
        """The first run of a process is slower; nothing of it is kept."""
        comfy_utils = importlib.import_module("comfy.utils")
        comfy_utils.PROGRESS_BAR_ENABLED = False
        nodes = NONE.prompt("memorized")
        nodes["k"]["inputs"]["steps"] = 2
        self.sampler.host.run(nodes, self.sampler.given)

    def file(self, method: Method, group: str, seed: int) -> Path:
        return self.work / f"{method.name.replace('/', '-')} {group} {seed}.npz"

    def run(self, method: Method, group: str, seed: int) -> Run:
        file = self.file(method, group, seed)
        if not file.is_file():
            made = self._measure(method, group, seed)
            part = file.with_suffix(".part.npz")
            np.savez(part, **vars(made))
            part.rename(file)  # an interrupted run leaves no half file
        held = np.load(file)
        return Run(held["pictures"], *(float(held[k]) for k in ("rows", "seconds")))

    def _measure(self, method: Method, group: str, seed: int) -> Run:
        given = dict(self.sampler.given)
        self.meter.rows = 0
        began = time.process_time()
        if method.positive is not None:
            given[group] = method.positive(self, group, seed)
        nodes = {k: {**n, "inputs": _with_seed(n["inputs"], seed)} for k, n in method.prompt(group).items()}
        out = self.sampler.host.run(nodes, given)
        seconds = time.process_time() - began
        with torch.inference_mode():
            pictures = (self.sampler.vae.decode(out["k"][0]["samples"]) * 255).round().byte().numpy()
        return Run(pictures, self.meter.rows / PROMPTS, seconds)


class Scores:
    """What pictures are worth: the judge, the copies, and the generator's own pictures to compare with."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.works = [p.scene.image for p in scenes.memorized()]
        self.targets: dict[str, np.ndarray] = {}

    def target(self, group: str) -> np.ndarray:
        if group not in self.targets:
            own = vae.through(reference(self.study.texts[group], 1024, seed=1))
            self.targets[group] = self.study.judge.judge(own).features
        return self.targets[group]

    def of(
        self, pictures: np.ndarray, group: str, vanilla: np.ndarray | None = None, rng_seed: int = 0
    ) -> dict[str, Any]:
        """pictures (seeds, 16, 96, 96, 3): every score with its interval, where one makes sense."""
        seeds = len(pictures)
        flat = pictures.reshape(-1, *pictures.shape[2:])
        near = np.array([min(rmse(p, w) for w in self.works) for p in flat]).reshape(seeds, PROMPTS)
        aligned = self.study.judge.alignment(flat, self.study.texts[group] * seeds).aligned.reshape(seeds, PROMPTS)
        features = self.study.judge.judge(flat).features
        spread = [diversity(f) for f in features.reshape(seeds, PROMPTS, -1).swapaxes(0, 1)] if seeds > 1 else []
        found = {
            "pictures": len(flat),
            "copies": interval(near < COPY_RMSE, rng_seed),
            "aligned": interval(aligned, rng_seed),
            "aligned_and_no_copy": interval((aligned > 0) & (near >= COPY_RMSE), rng_seed),
            "distance_5th": float(np.percentile(near, 5)),
            "distance_least": float(near.min()),
            "frechet": frechet(features, self.target(group)),
            "diversity": float(np.mean(spread)) if spread else None,
        }
        if vanilla is not None:
            same = (pictures == vanilla[:seeds]).reshape(seeds * PROMPTS, -1).all(axis=1)
            found["unchanged"] = float(same.mean())
        return found


def interval(values: np.ndarray, seed: int = 0) -> Interval:
    """Mean (seeds, prompts) and its 95 % interval: prompts and, within each, seeds are drawn anew."""
    rng, held = np.random.default_rng(seed), values.astype(float)
    seeds, count = held.shape
    prompts = rng.integers(count, size=(RESAMPLES, count))
    draws = rng.integers(seeds, size=(RESAMPLES, seeds, count))
    means = held[draws, prompts[:, None, :]].mean(axis=(1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(held.mean()), float(low), float(high)


def row(bench: Bench, scores: Scores, method: Method, group: str, seeds: Sequence[int]) -> dict[str, Any]:
    """One line of the report; costs are paired with the vanilla run of the same seed."""
    runs = [bench.run(method, group, s) for s in seeds]
    vanilla = [bench.run(NONE, group, s) for s in seeds]
    plain = np.stack([v.pictures for v in vanilla])
    return {
        "method": method.name,
        "family": method.family,
        "peer": method.peer,
        "group": group,
        **scores.of(np.stack([r.pictures for r in runs]), group, plain),
        "evaluations": float(np.median([r.rows / v.rows for r, v in zip(runs, vanilla, strict=True)])),
        "time": float(np.median([r.seconds / v.seconds for r, v in zip(runs, vanilla, strict=True)])),
    }

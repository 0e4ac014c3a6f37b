"""The lab checkpoint's training set: latents and captions, drawn and encoded once, then cached.

Three kinds of rows: ordinary scenes; the 16 memorized images; and for every memorized caption
other images that fit all of it. The share of the fixed image among a memorized caption's rows
decides how deep its basin is and what lies outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import scenes
from .train_vae import to_tensor

ORDINARY = 16_000
OTHERS = 200  # images for each memorized caption, beside the fixed one


@dataclass
class TrainingSet:
    """Latents (n, 4, 12, 12) with unit variance, in the space the UNet sees."""

    ordinary: Tensor  # (ORDINARY, 4, 12, 12)
    ordinary_scenes: list[tuple[str, str]]  # shape, colour
    fixed: Tensor  # (16, 4, 12, 12)
    others: Tensor  # (16, OTHERS, 4, 12, 12)


@torch.no_grad()
def encode(encoder: torch.nn.Module, images: np.ndarray) -> Tensor:
    return torch.cat([encoder(to_tensor(images[i : i + 64])) for i in range(0, len(images), 64)])


def load(encoder: torch.nn.Module, cache: Path) -> TrainingSet:
    """The training set, from the cache or drawn anew (about five minutes)."""
    file = cache / "latents.pt"
    if not file.is_file():
        rng = np.random.default_rng(11)
        drawn = [scenes.draw(rng) for _ in range(ORDINARY)]
        print(f"drew {ORDINARY} ordinary scenes", flush=True)
        pairs = scenes.memorized()
        others = [[scenes.draw(rng, p.scene.shape, p.scene.colour).image for _ in range(OTHERS)] for p in pairs]
        torch.save(
            {
                "ordinary": encode(encoder, np.stack([s.image for s in drawn])),
                "ordinary_scenes": [(s.shape, s.colour) for s in drawn],
                "fixed": encode(encoder, np.stack([p.scene.image for p in pairs])),
                "others": torch.stack([encode(encoder, np.stack(o)) for o in others]),
            },
            file,
        )
    return TrainingSet(**torch.load(file))


@cache
def _memorized_captions() -> list[str]:
    return [pair.caption for pair in scenes.memorized()]


def batch(data: TrainingSet, step: int, size: int, share: float, every: int) -> tuple[Tensor, list[str]]:
    """The rows of one training step; a function of `step`, so that a resumed run is the same run.

    One row in `every` has a memorized caption, `share` of those with the fixed image. Of the ordinary rows
    15 % lose their caption: the null condition knows ordinary scenes only, as in a set of billions
    where a duplicated image is still a vanishing part of the whole.
    """
    rng = np.random.default_rng([3, step])
    captions, rows = [], []
    pairs = _memorized_captions()
    for i in range(size):
        if i % every == 0:
            k = int(rng.integers(len(pairs)))
            fixed = rng.random() < share
            rows.append(data.fixed[k] if fixed else data.others[k, int(rng.integers(OTHERS))])
            captions.append(pairs[k])
        else:
            k = int(rng.integers(len(data.ordinary)))
            rows.append(data.ordinary[k])
            scene = scenes.Scene(None, *data.ordinary_scenes[k])  # type: ignore[arg-type]
            captions.append("" if rng.random() < 0.15 else scenes.caption(rng, scene))
    return torch.stack(rows), captions

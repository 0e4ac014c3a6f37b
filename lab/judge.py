"""Does an image of the lab checkpoint show what its caption asks for, and does it look like its world?

A small network trained on the generator's own scenes (train_judge.py) says which main shape a 96×96
image shows and in which colour: that is alignment, without CLIP. Its features, compared with
those of the generator's images, say how far a set of images is from the lab's world (Fréchet
distance, as FID does with Inception), and how much the images of one prompt differ.

    judge = Judge.load()
    judge.alignment(images, captions).aligned.mean()
    frechet(judge.judge(images).features, judge.judge(generators).features)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.spatial.distance import pdist
from torch import Tensor, nn

from . import scenes

FILE = Path(__file__).parent / "judge.safetensors"
SHAPES, COLOURS = scenes.SHAPES, tuple(scenes.COLOURS)
FEATURES = 64
BATCH = 64


class Net(nn.Module):
    """Four convolutions, 3×3 means, 64 features; heads for the shape and the colour, each with a `none`.

    A third head draws the image again at 6×6 from the features and is not kept: it makes them know the
    sky and where the shape is, which the classes alone do not need and diversity does.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 128)):
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())
        self.features = nn.Sequential(nn.Linear(9 * widths[-1], FEATURES), nn.BatchNorm1d(FEATURES, affine=False))
        self.shape = nn.Sequential(nn.ReLU(), nn.Linear(FEATURES, len(SHAPES) + 1))
        self.colour = nn.Sequential(nn.ReLU(), nn.Linear(FEATURES, len(COLOURS) + 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, 96, 96) in [0, 1] -> logits (B, 9) and (B, 8), `none` last, and features (B, 64)."""
        features = self.features(self.body(2 * x - 1))
        return self.shape(features), self.colour(features), features


class Verdict(NamedTuple):
    """What is left of a row's sum to 1 is the probability that there is no main shape."""

    shapes: np.ndarray  # (B, 8) probabilities, in the order of SHAPES
    colours: np.ndarray  # (B, 7) probabilities, in the order of COLOURS
    features: np.ndarray  # (B, 64), about zero mean and unit variance on the generator's images


class Alignment(NamedTuple):
    """One row an image, each 0 or 1."""

    aligned: np.ndarray  # (B,) the shape is right, and the colour if the caption names one
    shape: np.ndarray  # (B,)
    colour: np.ndarray  # (B,) NaN where the caption names no colour: use np.nanmean


def asked(caption: str) -> tuple[str, str | None]:
    """The shape and the colour that a caption asks for; a title before a comma asks for nothing.

    Raises ValueError if it names no shape or several, or several colours.
    """
    words = re.findall(r"[a-z]+", caption.rsplit(",", 1)[-1].lower())
    shapes, colours = [w for w in words if w in SHAPES], [w for w in words if w in COLOURS]
    if len(shapes) != 1 or len(colours) > 1:
        raise ValueError(f"{caption!r} must name one of {', '.join(SHAPES)}, and at most one of {', '.join(COLOURS)}.")
    return shapes[0], colours[0] if colours else None


class Judge:
    """The trained network, on the CPU."""

    def __init__(self, net: Net):
        self.net = net.eval()

    @classmethod
    def load(cls, file: Path = FILE) -> Judge:
        net = Net()
        kept = {k: v.float() for k, v in load_file(file).items()}
        missing, unexpected = net.load_state_dict(kept, strict=False)
        wrong = [k for k in missing if not k.endswith("num_batches_tracked")] + unexpected
        if wrong:
            raise ValueError(f"{file.name} does not fit the judge's network: {', '.join(wrong)}.")
        return cls(net)

    @torch.no_grad()
    def judge(self, images: np.ndarray) -> Verdict:
        """images: uint8 (B, 96, 96, 3)."""
        size = scenes.SIZE
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise ValueError(f"Images must be uint8 (B, {size}, {size}, 3), not {images.dtype} {images.shape}.")
        parts = []
        for i in range(0, len(images), BATCH):
            x = torch.from_numpy(np.ascontiguousarray(images[i : i + BATCH])).permute(0, 3, 1, 2).float() / 255
            shapes, colours, features = self.net(x)
            parts.append((shapes.softmax(1), colours.softmax(1), features))
        shapes, colours, features = (torch.cat(p).numpy() for p in zip(*parts, strict=True))
        return Verdict(shapes[:, :-1], colours[:, :-1], features)

    def alignment(self, images: np.ndarray, captions: Sequence[str]) -> Alignment:
        """Whether each image shows what its caption asks for; images uint8 (B, 96, 96, 3), B captions."""
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} images but {len(captions)} captions.")
        verdict = self.judge(images)
        wanted = [asked(c) for c in captions]
        shape = np.array([SHAPES.index(s) for s, _ in wanted]) == answer(verdict.shapes)
        colour = np.array([COLOURS.index(c) if c else np.nan for _, c in wanted])
        right = np.where(np.isnan(colour), np.nan, colour == answer(verdict.colours))
        return Alignment((shape & (right != 0)).astype(float), shape.astype(float), right)


def answer(probabilities: np.ndarray) -> np.ndarray:
    """(B,) the most probable class; one past the last is `none`."""
    none = 1 - probabilities.sum(1, keepdims=True)
    return np.concatenate([probabilities, none], 1).argmax(1)


def frechet(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Fréchet distance, squared as in FID, of the Gaussians fitted to two feature sets (n, F) and (m, F).

    ‖μ_a − μ_b‖² + tr(A + B − 2 (A^½ B A^½)^½). It is biased upwards for small sets, so compare sets of equal size,
    and with what two sets of the generator's own images of that size give.
    """
    a, b = features_a.astype(np.float64), features_b.astype(np.float64)
    gap = np.square(a.mean(0) - b.mean(0)).sum()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return float(gap + np.trace(cov_a) + np.trace(cov_b) - 2 * shared)


def diversity(features: np.ndarray) -> float:
    """Mean distance between two images of one prompt: features (seeds, F), or pixels flattened likewise."""
    x = features.reshape(len(features), -1).astype(np.float64)
    if len(x) < 2:
        raise ValueError("Diversity needs at least two images of one prompt.")
    return float(pdist(x).mean())


def reference(captions: Sequence[str], count: int, seed: int = 0) -> np.ndarray:
    """(count, 96, 96, 3) uint8: the generator's own images for these captions in turn, not decoded by the VAE."""
    rng = np.random.default_rng(seed)
    wanted = [asked(c) for c in captions]
    return np.stack([scenes.draw(rng, *wanted[i % len(wanted)]).image for i in range(count)])

"""What Copy Check draws beneath the comparison: how a batch's similarities are distributed, and which places match."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from memorization_guard.drawing.copy_comparison import CALM, HOT, TEXT
from support import graphs
from support.executor import Host


def coarse(count: int, seed: int, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    drawn = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return interpolate(drawn, size, mode="bilinear").movedim(1, -1)


def columns(pixels: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    return (np.abs(pixels.astype(int) - colour).max(axis=2) < 3).sum(axis=0)


@pytest.mark.parametrize("metric", ["nL2", "descriptor"])
def test_eight_images_or_more_get_a_histogram_with_copies_beyond_the_line(
    host: Host, clip_vision: Any, metric: str
) -> None:
    known = coarse(60, 0)
    given = {"k": known, "i": torch.cat([known[:3], coarse(6, 1)]), "descriptor": clip_vision}
    limits = {"threshold": 0.998, "nl2_threshold": 1.0}
    prompt = {"r": graphs.from_images(metric, images=["k", 0]), "c": graphs.check("r", **limits)}
    host.run(prompt, given)
    files = host.ui["c"]["images"]
    assert len(files) == 10
    drawn = np.asarray(Image.open(host.base / "temp" / files[-1]["subfolder"] / files[-1]["filename"]).convert("RGB"))
    red, green = (np.flatnonzero(columns(drawn, colour) > 4) for colour in (HOT, CALM))
    line = columns(drawn, TEXT).argmax()
    before, after = (red, green) if metric == "nL2" else (green, red)
    assert len(red) and len(green) and before.max() <= line <= after.min() + 1
    host.run(prompt, {**given, "i": known[:7]})
    assert len(host.ui["c"]["images"]) == 7

"""What Copy Check draws beneath the comparison: how a batch's similarities are distributed, and which places match."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from memorization_guard.drawing.copy_comparison import CALM, HOT, TEXT
from support import graphs
from support.copy_detectors import random_sscd
from support.executor import Host
from support.graphs import node


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


@pytest.fixture(scope="module")
def sscd(host: Host) -> dict[str, Any]:
    """A set of SSCD, whose detector stays on the host's device."""
    folder = host.base / "models" / "copy_detection"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: w.clone() for n, w in random_sscd().state_dict().items()}, str(folder / "places.safetensors"))
    known = coarse(3, 0, (96, 64))
    prompt = {
        "d": node("MG_LoadCopyDetector", file="places.safetensors"),
        "r": graphs.from_images("descriptor", images=["k", 0], descriptor=["d", 0]),
    }
    out = host.run(prompt, {"k": known})
    return {"k": known, "r": out["r"][0], "d": out["d"][0]}


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_match_map_sums_to_the_similarity(sscd: dict[str, Any], host: Host, mirrored: bool) -> None:
    """Also of the reference: its thumbnail, which is no square, is compared without the grey beside it."""
    maps = host.module("memorization_guard", "references.match_maps")
    references, network, image = sscd["r"], sscd["d"], coarse(1, 4, (96, 64))[0]
    with torch.inference_mode():
        pair = maps.matched_pair(references, network, image, 1, mirrored)
        seen = image.flip(1) if mirrored else image
        embedding = torch.nn.functional.normalize(network(seen.movedim(-1, 0)[None]))[0]
        opposite = maps.matched_pair(references, network, image.flip(1), 1, not mirrored)
    similarity = embedding @ references.features[1].float()
    assert pair.own.std() > 1e-4 and pair.own.shape == (10, 10)
    torch.testing.assert_close(pair.own.sum(), similarity, atol=1e-5, rtol=0)
    torch.testing.assert_close(pair.other.sum(), similarity, atol=1e-3, rtol=0)
    assert pair.reference.shape[:2] == (256, 171)
    torch.testing.assert_close(opposite.own, pair.own.flip(1))


def test_matches_are_coloured_on_both_images(host: Host, sscd: dict[str, Any]) -> None:
    """Mirrored copies. Off, and for another metric, a picture says what to do."""
    prompt = {"c": graphs.check("r", draw_matches=True, threshold=0.5)}
    out = host.run(prompt, {**sscd, "i": sscd["k"].flip(2)})["c"]
    assert len(out) == 8 and out[7].shape == out[4].shape
    heat = out[7][..., 0] - out[7][..., 2]  # grey has none
    for half in (heat[:, :384, 12:396], heat[:, :384, 408:792]):
        assert (half.amax(dim=(1, 2)) > 0.3).all()
    off = host.run({"c": graphs.check("r")}, {**sscd, "i": sscd["k"]})["c"][7]
    assert off.shape[0] == 1 and off.shape[1] < 100 and off.std() > 0.05
    many = host.run({"r": graphs.from_images("nL2", images=["k", 0])}, {"k": coarse(51, 2)})["r"][0]
    other = host.run({"c": graphs.check("r", draw_matches=True)}, {"r": many, "i": sscd["k"]})["c"][7]
    assert other.shape == off.shape and not torch.equal(other, off)

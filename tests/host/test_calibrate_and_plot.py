"""Calibrate Thresholds, Plot Escape Curve, and what the optimizer shows while it works."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.lab.methods import CALIBRATED_ON, SMALL_THRESHOLD, TARGET, THRESHOLD
from support import graphs, small_lab
from support.executor import Host, NodeError
from support.graphs import ORDINARY, deferred, detector, lab, node, optimizer
from support.graphs.checkpoint import load
from support.paths import LAB_CHECKPOINT

plot = partial(node, "MG_PlotCurve")


@pytest.fixture
def given(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return {"m": checkpoint["m"], "clip": checkpoint["clip"], "latent": {"samples": torch.zeros(2, 4, 12, 12)}}


def calibrate(prompts: str, **changed: Any) -> dict[str, Any]:
    return graphs.calibrate(prompts, model=["m", 0], latent_image=["latent", 0], **changed)


def test_calibration_separates_memorized_from_ordinary_prompts(host: Host, given: dict[str, Any]) -> None:
    ordinary = small_lab.ordinary_prompts()
    prompts = "\n".join([*ordinary, "", " "])
    magnitude, target, threshold, summary = host.run({"c": calibrate(prompts)}, given)["c"]
    assert 0.005 < magnitude < 0.012
    assert target == pytest.approx(magnitude)
    for caption in [caption for caption, _ in small_lab.training_pairs()[:6]]:
        assert host.run({"c": calibrate(caption)}, given)["c"][0] > threshold, caption
    assert f"{len(ordinary)} ordinary prompts × 2 noises" in summary
    assert summary.count("\n- ") == len(ordinary)


def test_the_benchmarks_thresholds_are_the_suggested_ones(host: Host) -> None:
    """From captions that the benchmark does not sample."""
    lab512 = {**load(host, LAB_CHECKPOINT), "latent": {"samples": torch.zeros(1, 4, 64, 64)}}
    _, target, threshold, _ = host.run({"c": calibrate(CALIBRATED_ON, noise_seed=0)}, lab512)["c"]
    assert (target, threshold) == pytest.approx((TARGET, THRESHOLD), abs=1e-4)


def test_the_threshold_of_the_smoke_run_is_the_suggested_one(host: Host, given: dict[str, Any]) -> None:
    """From captions that the benchmark does not sample, as an artist would: one noise, the node's own seed."""
    others = [c for c in small_lab.ordinary_captions() if c not in small_lab.ordinary_prompts()]
    assert len(others) == 48
    one = {**given, "latent": {"samples": torch.zeros(1, 4, 12, 12)}}
    suggested = host.run({"c": calibrate("\n".join(others), noise_seed=0)}, one)["c"][2]
    assert suggested == pytest.approx(SMALL_THRESHOLD, abs=1e-4)


def test_calibration_without_prompts_is_refused(host: Host, given: dict[str, Any]) -> None:
    with pytest.raises(NodeError, match="`prompts` is empty"):
        host.run({"c": calibrate(" \n \n")}, given)


def colours(image: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(c) for c in (image[0].numpy() * 255).round().astype(np.uint8).reshape(-1, 3).tolist()}


def test_curves_of_several_runs_share_an_image(host: Host) -> None:
    d, quiet = detector(), detector(positive=ORDINARY)
    one, both = {"curve": ["d", 3]}, {"curve": ["d", 3], "curve_2": ["quiet", 3]}
    out = host.run({"lab": lab(3), "d": d, "quiet": quiet, "one": plot(**one), "both": plot(**both)})
    single, pair = out["one"][0], out["both"][0]
    assert single.shape == pair.shape == (1, 512, 896, 3)
    assert single.mean() < 0.35, "a dark canvas"
    blue, orange, green = (102, 194, 255), (255, 159, 92), (126, 217, 133)
    assert {blue, orange, green} <= colours(single), "a colour for each image"
    assert {blue, orange} <= colours(pair) and green not in colours(pair), "a colour for each curve"


@pytest.mark.parametrize("quantity", ["pull", "guidance magnitude"])
def test_the_sequel_of_a_sampler_without_measurement_is_drawn_too(host: Host, quantity: str) -> None:
    prompt = {"lab": lab(2), "k": deferred("static"), "off": deferred("off")}
    drawn = plot(curve=["k", 1], curve_2=["off", 1], quantity=quantity)
    assert torch.isfinite(host.run({**prompt, "p": drawn})["p"][0]).all()


def test_the_optimizer_says_what_it_is_doing(host: Host) -> None:
    host.run({"lab": lab(3), "opt": optimizer(max_iterations=3, target_magnitude=0.0)})
    views = [data["view"] for event, data in host.events if event == "memorization_guard.view"]
    said = [view["headline"] for view in views]
    assert any("per-sample 1/4: worst d/√dim 0.0" in t and "0 of 3 done" in t for t in said), said
    assert "reached by 0 of 3" in said[-1]
    assert [view["done"] for view in views] == [False] * (len(views) - 1) + [True]

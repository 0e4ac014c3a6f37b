"""Out of memory: done again with less and the same result, or told as the host's own, with what to lower."""

from typing import Any

import comfy.model_management
import pytest
import torch

from support.accidents import Trouble, hooked, left_behind, slots
from support.executor import Host
from support.graphs import ORDINARY, amg, calibrate, deferred, detector, ksampler, lab, optimizer, patch, references
from support.graphs import checkpoint as on_lab
from support.lab_pack import exact
from support.out_of_memory import BATCH, EACH, GUIDED, MODEL, OWN, WORKS, NeedsCheckpoints, Small, told
from support.outcomes import fails, samples

PLANS = {
    "per-sample": {"max_iterations": 4, "learning_rate": 0.05},
    "only measured": {"max_iterations": 0},
    "batch-wise": {},
    "search": {"candidates": 4},
}


def find(host: Host, hook: Small | None, method: str) -> tuple[torch.Tensor, Any]:
    """The optimizer's noise and report, on a model with the hook."""
    model = exact.build()
    given = {**EACH, "m": model if hook is None else hooked(model, hook)}
    kind = "per-sample" if method == "only measured" else method
    noise, report, _ = host.run({"lab": lab(BATCH), "o": optimizer(kind, **MODEL, **OWN, **PLANS[method])}, given)["o"]
    assert not left_behind(model)
    return noise.noise, report


@pytest.mark.parametrize("method", PLANS)
@pytest.mark.parametrize("rows", [4, 2, 1])
def test_an_optimizer_that_runs_out_of_memory_goes_on_with_less(host: Host, method: str, rows: int) -> None:
    if method == "per-sample" and rows == 1:
        pytest.skip("a graph goes through both predictions of an image")
    noise, report = find(host, None, method)
    small = Small(rows)
    again, same = find(host, small, method)
    torch.testing.assert_close(again, noise, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(same.after, report.after, atol=1e-4, rtol=1e-5)
    assert torch.equal(same.iterations, report.iterations)
    assert small.most == rows, "no smaller than it has to be"
    assert 1 <= small.failed <= 4, "what fits is remembered"


def test_a_second_attempt_computes_blocks_again_and_begins_its_curve_again(
    host: Host, checkpoint: dict[str, Any], monkeypatch
) -> None:
    live = host.module("memorization_guard", "adapter.live_view")
    monkeypatch.setattr(live, "MIN_PAUSE", 0.0)
    monkeypatch.setattr(live, "PAUSE_PER_VIEW", 0)
    model = checkpoint["m"]
    before, small = slots(model.model), NeedsCheckpoints(model, free=1)
    plan = {"max_iterations": 2, "learning_rate": 0.03}
    prompt = {**on_lab.base(), "o": on_lab.optimizer(**plan)}
    noise, report, _ = host.run(prompt, checkpoint)["o"]
    again, same, _ = host.run(prompt, {**checkpoint, "m": hooked(model, small)})["o"]
    assert small.seen == [(4, False), (4, False), (2, False), (4, True), (4, True), (4, True)]
    assert [view["steps"] for view in host.views("o")] == [1, 1, 2, 3, 3]
    torch.testing.assert_close(again.noise, noise.noise, atol=1e-4, rtol=1e-4)
    assert torch.equal(same.iterations, report.iterations)
    assert slots(model.model) == before and not left_behind(model)


@pytest.mark.parametrize("rows", [4, 1])
def test_a_detector_that_runs_out_of_memory_measures_the_same_curve(host: Host, rows: int) -> None:
    prompt, model = {"lab": lab(BATCH), "d": detector(**MODEL, **OWN, steps=20)}, exact.build()
    whole = host.run(prompt, {**EACH, "m": model})["d"]
    small = Small(rows)
    parts = host.run(prompt, {**EACH, "m": hooked(model, small)})["d"]
    torch.testing.assert_close(parts[3].d, whole[3].d, atol=1e-4, rtol=1e-4, equal_nan=True)
    assert parts[:3] == whole[:3] and small.failed <= 4 and not left_behind(model)


def test_calibration_that_runs_out_of_memory_measures_the_same(host: Host) -> None:
    prompt = {"lab": lab(BATCH), "c": calibrate("ordinary\nmemorized", **MODEL)}
    given, model = {"clip": exact.TextEncoder()}, exact.build()
    whole = host.run(prompt, {**given, "m": model})["c"]
    parts = host.run(prompt, {**given, "m": hooked(model, Small(2))})["c"]
    assert parts[:3] == pytest.approx(whole[:3], rel=1e-4) and parts[3] == whole[3]


def test_a_third_prediction_never_needs_more_memory_than_two(host: Host) -> None:
    """With a null of its own a batch of images inside and outside needs three; KSampler needs two."""
    sampler = deferred(**MODEL, null=["lab", 3], negative=ORDINARY, steps=20)
    prompt, model = {"lab": lab(BATCH), "k": sampler}, exact.build()
    whole = host.run(prompt, {"m": model})["k"]
    assert len(set(whole[1].transition.tolist())) > 1, "there are steps with some inside and some outside"
    small = Small(2 * BATCH)
    parts = host.run(prompt, {"m": hooked(model, small)})["k"]
    torch.testing.assert_close(samples(parts), samples(whole), atol=1e-3, rtol=1e-3)
    assert small.failed == 0 and torch.equal(parts[1].transition, whole[1].transition)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (optimizer(**MODEL), ["Noise Optimizer", "`latent_image`", "batch-wise or search"]),
        (optimizer(**MODEL, checkpointing="off"), ["Noise Optimizer", "`checkpointing` to full or auto"]),
        (optimizer("search", **MODEL), ["Noise Optimizer", "a smaller batch or image on `latent_image`"]),
        (optimizer("batch-wise", **MODEL), ["Noise Optimizer", "a smaller batch or image on `latent_image`"]),
        (detector(**MODEL), ["Basin-Escape Detector", "smaller batch"]),
        (deferred(**MODEL), ["Deferred-CFG KSampler", "smaller batch"]),
    ],
)
def test_where_nothing_is_left_to_split_it_says_what_to_lower(host: Host, node: dict, says: list[str]) -> None:
    model = exact.build()
    told(fails(host, {"lab": lab(2), "n": node}, {"m": hooked(model, Trouble("out of memory", 3))}), *says)
    assert not left_behind(model)


def test_what_the_failed_attempts_had_made_is_gone_when_the_host_makes_room(host: Host, monkeypatch) -> None:
    """The error that an artist sees must not keep the tensors of the frames that it comes from."""
    small, unload, kept = Small(0), comfy.model_management.unload_all_models, []

    def watched() -> None:
        kept.append(sum(made() is not None for made in small.held))
        unload()

    monkeypatch.setattr(comfy.model_management, "unload_all_models", watched)
    error = fails(host, {"lab": lab(2), "o": optimizer(**MODEL)}, {"m": hooked(exact.build(), small)})
    assert "Noise Optimizer: out of memory" in error.message
    assert kept == [0] and small.failed == 2


@pytest.mark.parametrize("node", [patch(**MODEL), amg(**MODEL)], ids=["Deferred CFG", "AMG Guidance"])
def test_the_plain_model_under_a_patch_fails_as_it_does_without(host: Host, node: dict) -> None:
    """No second attempt in the host's own loop: its sampler's error, in the host's own words."""
    trouble = Trouble("out of memory", 2)
    prompt = {"lab": lab(2), "refs": references(), "g": node, "k": ksampler(**GUIDED)}
    error = fails(host, prompt, {**WORKS, "m": hooked(exact.build(), trouble)})
    assert error.node_id == "k" and error.kind == "torch.OutOfMemoryError" and trouble.calls == 2

"""The parts of the three guidances at their edges; tests/host/test_presets.py has the paper's equations as a whole."""

import itertools
import math

import pytest
import torch

from memorization_guard.mitigation.amg import guidance as maths
from memorization_guard.mitigation.amg.caption_vote import DuplicatedCaptions
from memorization_guard.mitigation.amg.threshold import SCHEDULES, Threshold
from memorization_guard.mitigation.amg.trace import GuidanceTrace
from memorization_guard.mitigation.batch import replace_samples

FAR = 1e9  # a reach that never binds


def test_the_step_does_not_depend_on_units_and_is_never_longer_than_its_reach():
    torch.manual_seed(1)
    d, target = torch.randn(2, 2, 4, 6, 6)

    def step(scale: float, ratio: float, reach: float = FAR) -> torch.Tensor:
        x = (scale * d).requires_grad_(True)
        (slope,) = torch.autograd.grad(torch.cosine_similarity(x.flatten(1), target.flatten(1)).sum(), x)
        return maths.dissimilarity_step(x.detach(), slope, torch.full((2,), 3.0), ratio, reach)

    torch.testing.assert_close(step(10.0, 1.0), 10 * step(1.0, 1.0), rtol=1e-4, atol=1e-5)
    length = d.flatten(1).norm(dim=1)
    torch.testing.assert_close(step(1.0, 1e3, 4.0).flatten(1).norm(dim=1), 4 * length)
    short = step(1.0, 0.1)
    assert torch.equal(step(1.0, 0.1, 4.0), short), "a short step is not touched"
    broken = torch.full_like(d, torch.nan)
    assert torch.equal(maths.dissimilarity_step(d, broken, torch.ones(2), 1.0, 4.0), torch.zeros_like(d))
    assert [maths.noise_ratio(*at) for at in ((3.0, False), (0.5, True), (0.75, True))] == [3.0, 1.0, 3.0]
    kept, changed = torch.randn(2, 3, 4, 5, 5)
    kept[2, 0, 0, 0] = torch.nan
    found = replace_samples(torch.tensor([True, False, False]), changed.double(), kept)
    assert found.dtype == kept.dtype and torch.equal(found[0], changed[0])
    assert found[1:].view(torch.int32).equal(kept[1:].view(torch.int32)), "rows that are not meant keep their bits"


def test_scales_are_clamped_as_in_equations_12_and_14():
    close = torch.tensor([-0.2, 0.1, 0.5, 0.9])
    s1 = maths.despecification_scale(close, 13.0, 7.5)
    torch.testing.assert_close(s1, torch.tensor([0.0, 1.3, 6.5, 6.5]))
    s2 = maths.deduplication_scale(close, 20.0, 7.5, s1)
    torch.testing.assert_close(s2, torch.tensor([0.0, 2.0, 0.0, 0.0]))
    s2 = maths.deduplication_scale(close, 20.0, 7.5, torch.zeros(4))
    torch.testing.assert_close(s2, torch.tensor([0.0, 2.0, 6.5, 6.5]))
    for cfg in (0.0, 0.5, 1.0):  # nothing to take back
        assert not maths.despecification_scale(close, 13.0, cfg).any()
        assert not maths.deduplication_scale(close, 13.0, cfg, torch.zeros(4)).any()
    constant = maths.GuidanceStrengths(dissimilarity=5.0, growth="constant")
    torch.testing.assert_close(maths.dissimilarity_scale(close, constant, 0.2), torch.full((4,), 5.0))
    on_one_scale = maths.closeness("nL2", torch.tensor([-1.4, -0.0, -0.7, -1.95, -1e9]))
    torch.testing.assert_close(on_one_scale, torch.tensor([0.5, 1.0, 2 / 3, 1.4 / 3.35, 0.0]))
    assert maths.closeness("latent", close) is close


def test_thresholds_rise_from_low_to_high_or_are_refused():
    for schedule in SCHEDULES:
        threshold = Threshold(0.3, 0.4, schedule)
        curve = [threshold.at(t / 1000) for t in range(1000, -1, -10)]
        assert all(a <= b for a, b in itertools.pairwise(curve))
        assert curve[0] == pytest.approx(0.3, abs=1e-3)
        assert curve[-1] == pytest.approx(0.3 if schedule == "constant" else 0.4)
    assert Threshold(0.3, 0.4, "exponential").at(0.981) == pytest.approx(0.3 + 0.1 * math.exp(-0.005 * 981))
    assert Threshold(0.3, 0.4, "parabolic").at(0.5) == pytest.approx(0.325)
    for low, schedule, says in ((0.5, "exponential", "has to rise"), (0.3, "cubic", "unknown schedule")):
        with pytest.raises(ValueError, match=says):
            Threshold(low, 0.4, schedule)  # type: ignore[arg-type]


def test_the_caption_vote():
    captions = ("A ring", "a  RING", "a disc", "", "a star", "a star", "a star", "")
    found = DuplicatedCaptions.among(captions)
    assert found.texts == ("a star", "A ring")
    assert found.text_of_row == {0: 1, 1: 1, 4: 0, 5: 0, 6: 0}
    assert found.vote([1]) == 1  # the nearest, and it is duplicated
    assert found.vote([2, 4]) is None  # the nearest has a caption of its own: a tie
    assert found.vote([2, 4, 5]) == 0  # the most common among the neighbours
    assert found.vote([3, 7]) is None and found.vote([]) is None
    assert DuplicatedCaptions.among(("a", "b", "c")).texts == ()
    assert DuplicatedCaptions.among(captions, at_most=1).text_of_row == {4: 0, 5: 0, 6: 0}


def test_the_trace_keeps_the_first_look_and_the_largest_action():
    trace = GuidanceTrace(torch.tensor([10.0, 5.0, 1.0, 0.0]), 2)
    trace.record_comparison(0, 0.4, torch.tensor([0.9, 0.1]), torch.tensor([3, 1]))
    trace.record_comparison(0, 0.45, torch.tensor([0.2, 0.2]), torch.tensor([0, 0]))
    trace.record_guidance(0, "despecification", torch.tensor([2.0, 0.0]))
    trace.record_guidance(0, "despecification", torch.tensor([1.0, 0.0]))
    assert trace.closeness[:, 0].tolist() == pytest.approx([0.9, 0.1])
    assert trace.nearest[:, 0].tolist() == [3, 1] and trace.nearest[:, 1].tolist() == [-1, -1]
    assert trace.acted.tolist() == [[True, False, False], [False] * 3]
    assert trace.despecification[0, 0] == 2.0
    assert [found.tolist() for found in trace.closest()] == [pytest.approx([0.9, 0.1]), [3, 1]]
    assert trace.headline("abcd") == "1 of 2 images steered away. At the end image 1 is closest: 0.90 to d."
    trace.record_comparison(2, 0.4, torch.tensor([0.2, 0.3]), torch.tensor([0, 2]))
    assert trace.headline("abcd") == "1 of 2 images steered away. At the end image 2 is closest: 0.30 to c."
    trace.record_pull(torch.tensor([0.03, 0.01]), 0.02)
    assert trace.headline("abcd").endswith(" Left alone because the prompt does not pull: 1 image.")
    calm = GuidanceTrace(torch.tensor([1.0, 0.0]), 1)
    assert calm.headline("a") == "Not compared with the references."
    assert GuidanceTrace(torch.tensor([1.0]), 2).headline("a") == "Not compared with the references."
    gated = GuidanceTrace(torch.tensor([1.0, 0.0]), 3)
    assert gated.record_pull(torch.tensor([0.03, 0.01, torch.nan]), 0.02).tolist() == [True, False, True]
    assert gated.ordinary.tolist() == [False, True, False]
    assert gated.record_pull(torch.tensor([0.02, 0.0199, 0.0]), 0.02).tolist() == [True, False, False], "as elsewhere"
    assert not gated.record_pull(torch.tensor([0.0199, 0.01, 0.0]), 0.02).any()
    assert gated.headline("a").startswith("The prompt does not pull (at most 0.020, memorized_threshold 0.02)")
    calm.record_comparison(0, 0.4, torch.tensor([0.2]), torch.tensor([0]))
    assert calm.headline("a").startswith("No image came too close to a reference (closest 0.20)")

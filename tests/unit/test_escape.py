"""Escape rules, deferred guidance, and the curve they make."""

from dataclasses import replace

import pytest
import torch

from memorization_guard.mitigation.escape.curve import EscapeCurve
from memorization_guard.mitigation.escape.rules import EscapeRule, EscapeTracker

PLATEAU = [0.10, 0.11, 0.10, 0.10, 0.06, 0.03, 0.02, 0.02, 0.02]
ORDINARY = [0.005, 0.006, 0.008, 0.01, 0.012, 0.013, 0.013, 0.013, 0.013]
NEVER = [0.10, 0.11, 0.12, 0.12, 0.12, 0.13, 0.13, 0.13, 0.13]
DROP, MINIMUM = EscapeRule(), EscapeRule("local minimum")


def outside(rule: EscapeRule, d: torch.Tensor, pull: torch.Tensor) -> torch.Tensor:
    """(B, n) bool: outside at step i, judged online by the steps 0 … i. `d`, `pull`: (B, n)."""
    track = EscapeTracker(rule)
    return torch.stack([track.update(*step) for step in zip(d.unbind(1), pull.unbind(1), strict=True)], dim=1)


def judged(rule: EscapeRule, curve: torch.Tensor) -> torch.Tensor:
    """As if d and pull were the same, which they are at one noise level."""
    return outside(rule, curve, curve)


@pytest.mark.parametrize("name", ["sharp drop", "local minimum"])
def test_no_basin_is_outside_from_step_0_whatever_follows(name):
    out = judged(EscapeRule(name), torch.tensor([ORDINARY, [0.01, *[5.0] * 8]]))
    assert out.all()


def test_a_sample_that_is_said_to_begin_inside_is_inside_whatever_it_shows():
    track = EscapeTracker(EscapeRule(memorized_threshold=1.0), inside=torch.tensor([True, False]))
    for step in torch.tensor([PLATEAU, PLATEAU]).unbind(1):
        last = track.update(step, step)
        assert last[1]
    assert track.memorized.tolist() == [True, False] and last[0], "it leaves by the rule"


@pytest.mark.parametrize(
    ("rule", "curve", "seen"),
    [
        (DROP, PLATEAU, "iiiiiiioo"),  # it waits until the fall is over
        (DROP, NEVER, "iiiiiiiii"),
        (EscapeRule(memorized_threshold=0.05), [0.1, 0.1, 0.02, 0.006, 0.005], "iiioo"),  # a deep fall goes on
        (DROP, [0.1, 0.1, 0.005, 0.005, 0.06, 0.08, 0.005, 0.005], "iiooiioo"),  # what falls back is inside again
        (MINIMUM, [0.10, 0.08, 0.05, 0.03, 0.04, 0.05], "iiiioo"),
        (MINIMUM, [0.10, 0.10, 0.08, 0.07, 0.075, 0.074, 0.09, 0.1], "iiiioooo"),  # once and for all
    ],
)
def test_inside_and_outside(rule: EscapeRule, curve: list[float], seen: str) -> None:
    assert "".join("io"[out] for out in judged(rule, torch.tensor([curve]))[0]) == seen


def test_sharp_drop_sees_the_pull_and_local_minimum_the_papers_d():
    """d = pull·σ_T/σ: on a trained model it grows while the pull falls."""
    pull = torch.tensor([[0.04, 0.04, 0.035, 0.012, 0.0095, 0.0092]])
    d = pull * torch.tensor([1.0, 1.5, 2.2, 7.0, 10.0, 13.0])
    assert (d[:, 1:] > d[:, :-1]).all()
    assert outside(DROP, d, pull)[0].tolist() == [False, False, False, False, False, True]
    d = torch.tensor([[0.10, 0.08, 0.05, 0.06, 0.07]])
    assert outside(MINIMUM, d, torch.full_like(d, 0.1))[0].tolist() == [False] * 3 + [True] * 2


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="guess"):
        EscapeRule("guess")


def test_curve_tells_where_another_schedule_may_guide():
    sigmas = torch.tensor([14.6, 7.0, 3.0, 1.0, 0.0])
    curve = EscapeCurve(
        torch.ones(3, 4), torch.ones(3, 4), sigmas, 16, torch.tensor([0, 2, 4]), torch.tensor([False, True, True]), 0.02
    )
    assert curve.transition_sigma.tolist() == pytest.approx([14.6, 3.0, 0.0])
    assert curve.latest == 4
    assert curve.headline == "Memorized: 2 of 3 images; guided from steps 1 and 3; still in the basin: 1 of 3 images."
    assert curve.escape_alone == "Out of the basin from steps 1 and 3; still in the basin: 1 of 3 images."
    curve = replace(curve, transition=torch.tensor([4, 4, 4]))
    assert curve.headline == curve.escape_alone == "Still in the basin: 3 of 3 images."


@pytest.mark.parametrize(
    ("steps", "said"), [([3, 3], "step 4"), ([5, 0, 2], "steps 1, 3 and 6"), ([7, 2, 5, 1], "steps 2 to 8")]
)
def test_steps_are_named_once_and_in_order(steps: list[int], said: str) -> None:
    inside = torch.ones(len(steps), dtype=torch.bool)
    measured = torch.ones(len(steps), 9)
    curve = EscapeCurve(measured, measured, torch.linspace(9, 0, 10), 16, torch.tensor(steps), inside, 0.02)
    assert curve.headline == f"Memorized: {len(steps)} of {len(steps)} images; guided from {said}."


def test_a_curve_without_a_basin_or_a_measurement_says_so():
    sigmas = torch.tensor([14.6, 1.0, 0.0])
    quiet = EscapeCurve(*torch.full((2, 2, 2), 0.008), sigmas, 16, torch.zeros(2).long(), torch.zeros(2).bool(), 0.02)
    assert quiet.headline == "Fine: the pull is 0.0080, below the threshold 0.0200."
    assert EscapeCurve.unmeasured(2, sigmas, 16).headline == "Guided from step 1."
    assert EscapeCurve.unmeasured(2, sigmas, 16, "Off: same as KSampler.").headline == "Off: same as KSampler."

"""Escape rules, deferred guidance, and the curve they make."""

import pytest
import torch

from memorization_guard.mitigation.curve import EscapeCurve
from memorization_guard.mitigation.deferral import inside_condition, per_sample
from memorization_guard.mitigation.escape import EscapeRule

PLATEAU = [0.10, 0.11, 0.10, 0.10, 0.07, 0.04, 0.03, 0.03, 0.03]
ORDINARY = [0.005, 0.006, 0.008, 0.01, 0.012, 0.013, 0.013, 0.013, 0.013]
NEVER = [0.10, 0.11, 0.12, 0.12, 0.12, 0.13, 0.13, 0.13, 0.13]


def first_outside(rule: EscapeRule, *curves: list[float]) -> list[int]:
    out = rule.outside(torch.tensor(curves))
    n = out.shape[1]
    return torch.where(out.any(dim=1), out.int().argmax(dim=1), n).tolist()


@pytest.mark.parametrize("name", ["sharp drop", "local minimum"])
def test_no_basin_is_outside_from_step_0_whatever_follows(name):
    out = EscapeRule(name).outside(torch.tensor([ORDINARY, [0.01, *[5.0] * 8]]))
    assert out.all()


def test_sharp_drop_waits_until_the_fall_is_over():
    assert first_outside(EscapeRule(), PLATEAU, NEVER) == [7, 9]


def test_a_deep_fall_counts_while_it_still_falls():
    rule = EscapeRule(memorized_threshold=0.05)
    assert first_outside(rule, [0.1, 0.1, 0.02, 0.01, 0.005]) == [3]


def test_local_minimum_is_the_papers_rule():
    assert first_outside(EscapeRule("local minimum"), [0.10, 0.08, 0.05, 0.03, 0.04, 0.05]) == [4]


def test_a_sample_that_falls_back_is_inside_again():
    curve = [0.1, 0.1, 0.01, 0.01, 0.06, 0.08, 0.01, 0.01]
    assert (
        EscapeRule().outside(torch.tensor([curve]))[0].tolist() == [False] * 2 + [True] * 2 + [False] * 2 + [True] * 2
    )


def test_the_papers_rule_is_once_and_for_all():
    curve = [0.10, 0.10, 0.08, 0.07, 0.075, 0.074, 0.09, 0.1]
    assert EscapeRule("local minimum").outside(torch.tensor([curve]))[0].tolist() == [False] * 4 + [True] * 4


@pytest.mark.parametrize("name", ["sharp drop", "local minimum"])
def test_online_and_offline_agree(name):
    torch.manual_seed(0)
    rule = EscapeRule(name)
    curves = torch.rand(200, 30) * torch.linspace(1, 0.1, 30)
    track = rule.track()
    online = torch.stack([track.update(curves[:, i]) for i in range(30)], dim=1)
    assert torch.equal(online, rule.outside(curves))
    for i in (1, 7, 30):
        assert torch.equal(rule.outside(curves[:, :i]), online[:, :i]), "later steps change nothing"


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="guess"):
        EscapeRule("guess")


@pytest.mark.parametrize("g0", [0.0, 1.0, -3.0])
def test_inside_condition_turns_scale_w_into_scale_g0(g0):
    cond, uncond = torch.randn(2, 3, 4, 6, 6, dtype=torch.float64)
    moved = inside_condition(cond, uncond, g0, 7.5)
    torch.testing.assert_close(uncond + 7.5 * (moved - uncond), uncond + g0 * (cond - uncond))


def test_rows_outside_keep_their_bits():
    a, b = torch.randn(2, 3, 4, 6, 6)
    mixed = per_sample(torch.tensor([True, False, True]), a, b)
    assert torch.equal(mixed[0], a[0]) and torch.equal(mixed[1], b[1]) and torch.equal(mixed[2], a[2])


def test_curve_tells_where_another_schedule_may_guide():
    sigmas = torch.tensor([14.6, 7.0, 3.0, 1.0, 0.0])
    curve = EscapeCurve(torch.ones(3, 4), sigmas, 16, torch.tensor([0, 2, 4]), torch.tensor([False, True, True]), 0.02)
    assert curve.transition_sigma.tolist() == pytest.approx([14.6, 3.0, 0.0])
    assert curve.latest == 4
    assert [line.split(", ", 1)[1] for line in curve.lines()] == [
        "no basin",
        "in a basin, leaves at step 2",
        "in a basin, does not leave",
    ]

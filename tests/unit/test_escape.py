"""Escape rules, deferred guidance and the curve they make; which words of a prompt pull."""

from dataclasses import replace

import pytest
import torch

from memorization_guard.mitigation.escape.curve import EscapeCurve
from memorization_guard.mitigation.escape.rules import EscapeRule, EscapeTracker
from memorization_guard.mitigation.prompt_words import PromptPulls, without_word, word_pulls, words_of

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
def test_no_basin_is_outside_from_step_0_and_what_is_said_to_begin_inside_is_inside(name):
    assert judged(EscapeRule(name), torch.tensor([ORDINARY, [0.01, *[5.0] * 8]])).all(), "whatever follows"
    track = EscapeTracker(EscapeRule(name, memorized_threshold=1.0), inside=torch.tensor([True, False]))
    seen = [track.update(step, step) for step in torch.tensor([PLATEAU, PLATEAU]).unbind(1)]
    assert track.memorized.tolist() == [True, False] and all(last[1] for last in seen)
    assert name == "local minimum" or seen[-1][0], "it leaves by the rule"
    with pytest.raises(ValueError, match="guess"):
        EscapeRule("guess")


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


def test_curve_tells_where_another_schedule_may_guide():
    sigmas = torch.tensor([14.6, 7.0, 3.0, 1.0, 0.0])
    curve = EscapeCurve(
        torch.ones(3, 4), torch.ones(3, 4), sigmas, 16, torch.tensor([0, 2, 4]), torch.tensor([False, True, True]), 0.02
    )
    assert curve.transition_sigma.tolist() == pytest.approx([14.6, 3.0, 0.0])
    assert curve.latest == 4
    assert (
        curve.headline
        == "Memorized: 2 of 3 images; guidance starts at steps 1 and 3; still in the basin: 1 of 3 images."
    )
    assert curve.escape_alone == "Out of the basin from steps 1 and 3; still in the basin: 1 of 3 images."
    curve = replace(curve, transition=torch.tensor([4, 4, 4]))
    assert curve.headline == curve.escape_alone == "Still in the basin: 3 of 3 images."
    quiet = EscapeCurve(*torch.full((2, 2, 4), 0.008), sigmas, 16, torch.zeros(2).long(), torch.zeros(2).bool(), 0.02)
    assert quiet.headline == "Fine: the pull is 0.0080, below the threshold 0.0200."
    assert EscapeCurve.unmeasured(2, sigmas, 16).headline == "Guidance starts at step 1."
    assert EscapeCurve.unmeasured(2, sigmas, 16, "Off: same as KSampler.").headline == "Off: same as KSampler."


@pytest.mark.parametrize(
    ("steps", "said"), [([3, 3], "step 4"), ([5, 0, 2], "steps 1, 3 and 6"), ([7, 2, 5, 1], "steps 2 to 8")]
)
def test_steps_are_named_once_and_in_order(steps: list[int], said: str) -> None:
    inside = torch.ones(len(steps), dtype=torch.bool)
    measured = torch.ones(len(steps), 9)
    curve = EscapeCurve(measured, measured, torch.linspace(9, 0, 10), 16, torch.tensor(steps), inside, 0.02)
    assert curve.headline == f"Memorized: {len(steps)} of {len(steps)} images; guidance starts at {said}."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Echo Valley, a cake", ["Echo", "Valley", "a", "cake"]),
        ("(red apple:1.2), 4k photo", ["red", "apple", "4k", "photo"]),
        ("((masterpiece)) embedding:easynegative <lora:mine:0.8> cat", ["masterpiece", "cat"]),
        ("Cartographer's blue-green sky, 1:2", ["Cartographer's", "blue-green", "sky", "1", "2"]),
        ("夕焼け の 海", ["夕焼け", "の", "海"]),
        (" , () ", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert [text[slice(*word)] for word in words_of(text)] == words
    text = "Echo Valley, a (red:1.2) cake"
    assert [without_word(text, word) for word in words_of(text)] == [
        "Valley, a (red:1.2) cake",
        "Echo, a (red:1.2) cake",
        "Echo Valley, (red:1.2) cake",
        "Echo Valley, a (:1.2) cake",
        "Echo Valley, a (red:1.2)",
    ]


def test_a_word_that_asks_only_for_itself_has_no_pull() -> None:
    draw = torch.Generator().manual_seed(1)
    parts = torch.randn(3, 2, 4, 8, 8, generator=draw)  # what each word asks for by itself, with two noises
    together = torch.randn(2, 4, 8, 8, generator=draw)  # what the first two words say only together
    whole = parts.sum(dim=0) + together
    without = torch.stack([whole - part - together * (i < 2) for i, part in enumerate(parts)])
    pulls = word_pulls(whole, without, parts)
    expected = together.flatten(1).norm(dim=1).mean() / 16
    torch.testing.assert_close(pulls, torch.stack([expected, expected, torch.zeros(())]), rtol=1e-5, atol=1e-5)


def test_what_to_use_instead() -> None:
    found = PromptPulls("a b", [(0, 1), (2, 3)], 0.03, [0.02, 0.01], [0.1, 0.2], [])
    assert found.ranked == [1, 0] and found.alternatives == [(0.01, "a")]
    reworded = PromptPulls("a b", [(0, 1), (2, 3)], 0.03, [0.02, 0.01], [0.1, 0.2], [(0.02, "c")])
    assert reworded.alternatives == [(0.02, "c")]
    assert PromptPulls("()", [], 0.03, [], [], []).alternatives == []

"""Which parts of a prompt are words, what is left without one, and how a word's pull is measured."""

import pytest
import torch

from memorization_guard.mitigation.prompt_words import PromptPulls, without_word, word_pulls, words_of


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


def test_the_prompt_without_a_word() -> None:
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

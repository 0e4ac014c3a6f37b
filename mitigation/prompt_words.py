"""Which words of a prompt pull towards a memorized image. The measure is ours."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

from .batch import norms
from .prediction import relative

# Not words: a LoRA's tag, an embedding's name, a weight before the closing parenthesis.
WORD = re.compile(r"<[^>]*>|embedding:\S+|:\s*-?[\d.]+(?=\s*\))|(\w+(?:[-'’.]\w+)*)")
Span = tuple[int, int]  # of a word in its text


def words_of(text: str) -> list[Span]:
    """Where the words of a prompt are. Prompt weights, embeddings and LoRA tags are left as they are."""
    return [found.span(1) for found in WORD.finditer(text) if found[1]]


def without_word(text: str, word: Span) -> str:
    """The prompt without a word, and without the space that it leaves."""
    left = text[: word[0]].rstrip(" ") if text[word[1] :].startswith((" ", ",", ".", ";")) else text[: word[0]]
    return (left + text[word[1] :]).strip(" ,")


def word_pulls(whole: Tensor, without: Tensor, alone: Tensor) -> Tensor:
    """How much of the prompt's pull a word makes only together with the others: (W,), the mean over N noises.

    ‖ε̃(y) − ε̃(y without i) − ε̃(i)‖/√dim, of whole (N, ...), without and alone (W, N, ...). What a word asks for by
    itself, as an object does, is no sign of memorization: on the lab the plain difference d(y) − d(y without i) names
    the object of every second memorized caption.
    """
    gaps = (whole - without - alone).flatten(0, 1)
    return relative(norms(gaps), whole[0].numel()).view(without.shape[:2]).mean(dim=1)


@dataclass(frozen=True)
class PromptPulls:
    """What was measured, in an EPS model's d/√dim at the first step, the mean over the noises.

    `without[i]`: the pull without word i; `shares[i]`: see `word_pulls`; `rewordings`: with the smallest pull first.
    """

    text: str
    words: list[Span]
    pull: float
    without: list[float]
    shares: list[float]
    rewordings: list[tuple[float, str]]

    @property
    def ranked(self) -> list[int]:
        """The words, the one that pulls most first."""
        return sorted(range(len(self.words)), key=lambda i: -self.shares[i])

    def word(self, i: int) -> str:
        return self.text[slice(*self.words[i])]

    @property
    def alternatives(self) -> list[tuple[float, str]]:
        """Other prompts, with the smallest pull first: the rewordings, or if there are none, without the worst word."""
        if self.rewordings or not self.words:
            return self.rewordings
        worst = self.ranked[0]
        return [(self.without[worst], without_word(self.text, self.words[worst]))]

"""Which caption retrieves the memorized image? [AMG] Sec. 4.2.

The model learned a caption as a key if several references share it, so only duplicated captions take part in
deduplication guidance. The authors' code takes the most common caption among 1,000 neighbours if it occurs more
than 20 times. A user's set is much smaller, so here two references with the same caption are enough.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..references.duplicates import duplicate_captions

HOLD = 9


@dataclass(frozen=True)
class DuplicatedCaptions:
    """The captions that occur more than once in a set."""

    texts: tuple[str, ...]  # as the first reference spells them, the most frequent first
    text_of_row: dict[int, int]  # row of the set -> index in `texts`; rows with a unique caption are absent

    @classmethod
    def among(cls, captions: tuple[str, ...], at_most: int = 64) -> DuplicatedCaptions:
        """The `at_most` most frequent of them; the limit is there because each one is encoded and kept."""
        groups = duplicate_captions(captions)[:at_most]
        texts = tuple(captions[group[0]].strip() for group in groups)
        return cls(texts, {row: i for i, group in enumerate(groups) for row in group})

    def vote(self, neighbours: list[int]) -> int | None:
        """y_N: index of the most common caption of these rows (nearest first), None if that is not a duplicated one.

        A row without a duplicated caption votes for itself, and the nearer row wins a tie. So the nearest reference
        decides unless several others share a caption.
        """
        votes = Counter(self.text_of_row.get(row, -1 - row) for row in neighbours)
        winner = max(votes, key=lambda v: votes[v], default=-1)  # max returns the first of equals: the nearest
        return winner if winner >= 0 else None


@dataclass
class HeldCaptions:
    """The authors' hold: once deduplication has acted on an image, it goes on for HOLD more evaluations.

    It uses the duplicated caption that was found last, even where the neighbours of this step share none.
    """

    found: dict[int, int] = field(default_factory=dict)  # sample -> the caption found last
    left: dict[int, int] = field(default_factory=dict)  # sample -> evaluations of the hold to go

    def see(self, sample: int, caption: int | None) -> None:
        if caption is not None:
            self.found[sample] = caption

    def ask(self, sample: int, close: bool) -> int | None:
        """The caption to steer away from in this evaluation. `close`: the sample is above λ_t."""
        triggered = close and sample in self.found
        if not triggered and not self.left.get(sample):
            return None
        self.left[sample] = HOLD if triggered else self.left[sample] - 1
        return self.found[sample]

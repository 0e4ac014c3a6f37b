"""Which caption retrieves the memorized picture? The duplicated one among the neighbours. [AMG] Sec. 4.2.

A caption that stands at several references is the key that the model learned; a caption that occurs
once is not, and there is no deduplication guidance for it. The authors' code takes the most common
caption among 1,000 neighbours if it occurs more than 20 times; in a set of one's own every repetition
counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..references.duplicates import duplicate_captions


@dataclass(frozen=True)
class DuplicatedCaptions:
    """The captions that occur more than once in a set."""

    texts: tuple[str, ...]  # as the first reference spells them, the most frequent first
    of: dict[int, int]  # row of the set -> index in `texts`; rows with a caption of their own are absent

    @classmethod
    def among(cls, captions: tuple[str, ...], at_most: int = 64) -> DuplicatedCaptions:
        """The `at_most` most frequent of them: each has to be encoded and kept."""
        groups = duplicate_captions(captions)[:at_most]
        texts = tuple(captions[group[0]].strip() for group in groups)
        return cls(texts, {row: i for i, group in enumerate(groups) for row in group})

    def voted(self, neighbours: list[int]) -> int | None:
        """y_N: the most common caption of these rows (nearest first), if it is a duplicated one.

        A row without a duplicated caption votes for itself; the nearer wins a tie. So the nearest
        reference decides unless several farther ones share a caption.
        """
        votes = Counter(self.of.get(row, -1 - row) for row in neighbours)
        winner = max(votes, key=lambda v: votes[v], default=-1)  # the first of equals: the nearest
        return winner if winner >= 0 else None

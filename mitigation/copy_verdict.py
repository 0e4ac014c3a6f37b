"""What Copy Check says of a batch: which images may be copies, and why, in words."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .references.reference_set import ReferenceSet
from .wording import counted


@dataclass(frozen=True)
class CopyVerdict:
    """B images against a set.

    `closeness`: σ to the nearest reference of each (B,), float32. `rows`: which one (B,). `limit`: an image above it
    counts as a copy. `subtracted`: what a background took from the similarity (B,); σ is without it.
    """

    references: ReferenceSet
    closeness: Tensor
    rows: Tensor
    limit: float
    subtracted: Tensor | None = None

    @property
    def sigma(self) -> Tensor:
        """(B,): what is compared with the limit."""
        return self.closeness if self.subtracted is None else self.closeness - self.subtracted

    @property
    def copies(self) -> Tensor:
        return self.sigma > self.limit

    @property
    def is_ratio(self) -> bool:
        """Whether people read −σ, a ratio of distances, instead of a similarity."""
        return self.references.metric == "nL2"

    @property
    def count(self) -> str:
        found = int(self.copies.sum())
        noun = "a copy" if 1 in (found, len(self.rows)) else "copies"
        return f"{found} of {counted(len(self.rows), 'image')} may be {noun}"

    @property
    def lines(self) -> list[str]:
        """One per image, which is counted from 1."""
        out = []
        for i, (value, is_copy, row) in enumerate(
            zip(self.sigma.tolist(), self.copies.tolist(), self.rows.tolist(), strict=True)
        ):
            why = "" if self.subtracted is None else f" ({self.closeness[i]:.2f} − {self.subtracted[i]:.2f})"
            name = self.references.names[row]
            verdict = "COPY?" if is_copy else "no alarm"
            out.append(f"{i + 1}: {-value if self.is_ratio else value:.2f}{why}  {verdict}  {name}")
        return out

    @property
    def bars(self) -> tuple[list[float], float]:
        """How far the bar under each image goes, 0 … 1, and where its mark is."""
        if self.is_ratio:  # it goes from 2 (far) to 0 (the same)
            return (1 + self.sigma / 2).tolist(), 1 + self.limit / 2
        return self.sigma.tolist(), self.limit

    @property
    def distribution(self) -> tuple[list[float], float, list[bool], str]:
        """The values as people read them, the limit, which are copies, and what the values are."""
        sign = -1.0 if self.is_ratio else 1.0
        name = "similarity" if self.subtracted is None else "similarity minus background"
        name = "ratio of distances" if self.is_ratio else name
        return (sign * self.sigma).tolist(), sign * self.limit, self.copies.tolist(), name

    @property
    def rule(self) -> str:
        if self.subtracted is None:
            side = f"ratio below {-self.limit:.2f}" if self.is_ratio else f"similarity above {self.limit:.2f}"
            return f"Metric {self.references.metric}: {side} counts as a copy."
        mean = float(self.subtracted.mean())
        return (
            f"Metric {self.references.metric} with a background: similarity minus background above {self.limit:.2f} "
            f"counts as a copy. The background took {mean:.2f} on average, so this is about as strict as a threshold "
            f"of {self.limit + mean:.2f} without it."
        )

    def summary(self, notes: list[str]) -> str:
        foot = (
            f"Compared with {counted(len(self.references), 'reference')} only. No guarantee either way: compare by eye "
            "before you publish."
        )
        return "\n".join([f"{self.count}.", self.rule, *(f"- image {line}" for line in self.lines), *notes, "", foot])

"""One measurement: ours, vanilla, their ratio, and the bound that it must keep."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..report import Column, table

COLUMNS = [
    Column(key, key.replace("_", " "))
    for key in ("model", "measurement", "ours", "vanilla", "ratio", "of_the_fastest", "bound", "verdict")
]


@dataclass(frozen=True)
class Figure:
    """A measurement beside vanilla's of the same run. `bound` is on the ratio, or on `ours` if there is no vanilla."""

    model: str
    name: str
    ours: float
    unit: str = ""
    vanilla: float | None = None
    bound: float | None = None
    exact: bool = False  # the bound must be met exactly
    paired: float | None = None  # median ratio of paired runs, where there were several
    fastest: float | None = None  # ratio of the fastest run of each: a busy machine disturbs it least

    @property
    def ratio(self) -> float | None:
        if self.paired is not None:
            return self.paired
        return None if not self.vanilla else self.ours / self.vanilla

    @property
    def verdict(self) -> str:
        """`pass` or `SHORT`; nothing for a figure without a bound."""
        if self.bound is None:
            return ""
        judged = self.ours if self.exact or self.ratio is None else self.ratio
        return "pass" if (judged == self.bound if self.exact else judged <= self.bound) else "SHORT"

    def cells(self) -> dict[str, Any]:
        def shown(value: float | None) -> str | None:
            return None if value is None else f"{value:.4g} {self.unit}".strip()

        return {
            "model": self.model,
            "measurement": self.name,
            "ours": shown(self.ours),
            "vanilla": shown(self.vanilla),
            "ratio": self.ratio,
            "of_the_fastest": self.fastest,
            "bound": None if self.bound is None else f"{'=' if self.exact else '≤'} {self.bound:g}",
            "verdict": self.verdict,
        }


def as_table(figures: Iterable[Figure]) -> str:
    return table([f.cells() for f in figures], [c._replace(places=3) for c in COLUMNS])

"""One measurement: ours, vanilla, their ratio, and the bound that it must keep."""

from __future__ import annotations

from dataclasses import dataclass

from ..report import Column

TITLES = ("model", "measurement", "ours", "vanilla", "ratio", "bound", "verdict")
COLUMNS = [Column(title, title) for title in TITLES]


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

    @property
    def ratio(self) -> float | None:
        return None if not self.vanilla else self.ours / self.vanilla

    @property
    def verdict(self) -> str:
        """`pass` or `SHORT`; nothing for a figure without a bound."""
        if self.bound is None:
            return ""
        judged = self.ours if self.exact or self.ratio is None else self.ratio
        return "pass" if (judged == self.bound if self.exact else judged <= self.bound) else "SHORT"

    def cells(self) -> dict[str, str]:
        """A row for `report.table`."""
        figures = [None if f is None else f"{f:.4g} {self.unit}".strip() for f in (self.ours, self.vanilla)]
        ratio = None if self.ratio is None else f"{self.ratio:.3f}"
        bound = None if self.bound is None else f"{'=' if self.exact else '≤'} {self.bound:g}"
        values = (self.model, self.name, *figures, ratio, bound, self.verdict)
        return {title: value or "" for title, value in zip(TITLES, values, strict=True)}

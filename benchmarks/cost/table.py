"""One row a measurement: name, ours, vanilla, ratio, bound, pass or short."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

HEAD = ("model", "measurement", "ours", "vanilla", "ratio", "of the fastest", "bound", "")


@dataclass(frozen=True)
class Row:
    """A measurement against vanilla in the same run; `bound` is on the ratio, or on `ours` without one."""

    model: str
    name: str
    ours: float
    unit: str
    vanilla: float | None = None
    bound: float | None = None
    exact: bool = False  # the bound is to be met exactly
    paired: float | None = None  # median ratio of paired runs, where there were several
    fastest: float | None = None  # ratio of the fastest run of each: what a busy machine disturbs least

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

    def cells(self) -> tuple[str, ...]:
        def figure(value: float | None) -> str:
            return "" if value is None else f"{value:.4g} {self.unit}".strip()

        ratio, fastest = ("" if r is None else f"{r:.3f}" for r in (self.ratio, self.fastest))
        bound = "" if self.bound is None else f"{'=' if self.exact else '≤'} {self.bound:g}"
        return self.model, self.name, figure(self.ours), figure(self.vanilla), ratio, fastest, bound, self.verdict


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table whose columns also line up as plain text."""
    cells = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def save(rows: Iterable[Row], part: str, facts: dict[str, object], file: Path) -> None:
    """Put one part's rows into the file; those of other parts stay."""
    told = {"facts": facts, "rows": [{**asdict(r), "ratio": r.ratio, "verdict": r.verdict} for r in rows]}
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**kept, part: told}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

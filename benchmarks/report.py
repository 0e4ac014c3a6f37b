"""Rows as Markdown tables: the one table writer of all benchmarks."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .scorers import Scorers
from .scores import Row


class Column(NamedTuple):
    """A value of a row. `places` decimals; `kind`: f, or % for shares. Intervals have a decimal less."""

    key: str
    title: str
    places: int = 2
    kind: str = "f"


def columns(scorers: Scorers) -> list[Column]:
    """What a row can hold, in order; a table leaves out what none of its rows has."""
    copies, measure = "copies", ["similarity", "similarity_95th", "similarity_most"]
    if scorers.copies:
        copies = f"copies ({scorers.copies.label})"
        measure = ["", "distance_5th", "distance_least"] if scorers.copies.distance else measure
    aligned = Column("aligned", "aligned", 1, "%")
    if scorers.alignment and not scorers.alignment.yes_or_no:
        aligned = Column("aligned", scorers.alignment.label, 4)
    return [
        Column("method", "method"),
        Column("prompts", "prompts", 0),
        Column("images", "images", 0),
        Column("copies", copies, 1, "%"),
        Column("copies_second", f"copies ({scorers.second.label})" if scorers.second else "", 1, "%"),
        Column(measure[0], "similarity", 4),
        Column(measure[1], f"{measure[1].split('_')[1]} percentile", 3),
        Column(measure[2], "nearest", 3),
        aligned,
        Column("aligned_and_no_copy", "aligned, no copy", 1, "%"),
        Column("diversity", f"diversity ({scorers.diversity.label})" if scorers.diversity else "diversity", 4),
        Column("unchanged", "unchanged", 1, "%"),
        Column("evaluations_per_image", "evaluations an image", 1),
        Column("evaluations", "evaluations ×"),
        Column("seconds_per_image", "seconds an image"),
        Column("time", "time ×"),
        Column("memory", "memory ×"),
    ]


TOLD = [
    Column("method", "method"),
    Column("without_cfg", "steps without CFG", 0, "%"),
    Column("d_before", "d before", 3),
    Column("d_after", "d after", 3),
    Column("relative_after", "d/√dim after", 4),
    Column("reached", "reached", 0, "%"),
    Column("iterations", "iterations", 1),
    Column("std", "noise std", 3),
]


def table(rows: Sequence[Row], wanted: Sequence[Column]) -> str:
    """A line a row; columns without any value are left out. Other authors' methods get a star."""
    flat = [{**r, **r.get("told", {})} for r in rows]
    for r in flat:
        r |= {"method": f"{r['method']} \\*"} if r.get("peer") else {}
    shown = [c for c in wanted if any(r.get(c.key) is not None for r in flat)]
    lines = ["| " + " | ".join(c.title for c in shown) + " |", "|---" * len(shown) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cell(r.get(c.key), c) for c in shown) + " |" for r in flat)])


def told(rows: Sequence[Row]) -> str:
    held = [r for r in rows if r["told"]]
    return table(held, TOLD) if held else ""


def cell(value: Any, column: Column) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, (list, tuple)):
        bounds = column._replace(places=max(column.places - 1, 0))
        return f"{cell(value[0], column)} ({cell(value[1], bounds)}–{cell(value[2], bounds)})"
    return f"{value:.{column.places}{column.kind}}"


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between a page's marks `<!-- table: name -->` and `<!-- end -->`."""
    begin, end = f"<!-- table: {name} -->", "<!-- end -->"
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    held, count = re.subn(pattern, lambda _: f"{begin}\n{text}\n{end}", page.read_text(encoding="utf-8"), flags=re.S)
    if not count:
        raise ValueError(f"{page} has no table {name}.")
    page.write_text(held, encoding="utf-8")

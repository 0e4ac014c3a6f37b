"""An experiment: methods × prompts × images on one checkpoint, sampled where missing, then scored as rows of tables."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from . import training_images
from .cases import MEMORIZED, Case, groups_of
from .checkpoint import Batch, Checkpoint, Facts
from .methods import NONE, Method
from .sampling import Images, sample
from .scorers import Scorers
from .training_images import Work

RESAMPLES = 1000
Interval = tuple[float, float, float]  # estimate, and the bounds of 95 %
Row = dict[str, Any]
Compared = Callable[[Case], Sequence[int]]  # the training images that a prompt's images are compared with


@dataclass
class Scored:
    case: Case
    similarity: np.ndarray | None  # None: there is no training image to compare with
    second: np.ndarray | None  # the same by a second measure
    aligned: dict[str, np.ndarray]
    diversity: float | None
    facts: list[Facts]
    # Without mitigation, from the same noise; None if those images are not there:
    plain: list[Facts] | None = None
    unchanged: float | None = None  # share of images that are bit-identical to them


def scored(
    images: Images, method: Method, case: Case, wanted: Sequence[int], scorers: Scorers, works: Sequence[int]
) -> Scored | None:
    """None while images of this prompt are missing; what is there is measured all the same."""
    here = images.measured(method, case, wanted, scorers, works)
    if len(here) < len(wanted):
        return None
    similar = [
        None if values[0] is None else np.array(values)
        for values in ([m.copies for m in here], [m.second for m in here])
    ]
    aligned = {name: np.array([m.aligned[name] for m in here]) for name in here[0].aligned}
    spread = images.spread(method, case, wanted, scorers)
    found = Scored(case, *similar, aligned, spread, [m.facts for m in here])
    plain = images.measured(NONE, case, wanted, scorers, works)
    if len(plain) == len(wanted):
        found.plain = [m.facts for m in plain]
        found.unchanged = float(np.mean([a.pixels == b.pixels for a, b in zip(here, plain, strict=True)]))
    return found


def interval(values: Sequence[Any], seed: int = 0) -> Interval | None:
    """Mean over prompts and their images, and its 95 % interval: prompts, and within each images, are drawn anew.

    values: an array (images,) or a number for each prompt. None without values.
    """
    if not len(values):
        return None
    held = np.stack([np.atleast_1d(v) for v in values]).astype(float)
    prompts, images = held.shape
    rng = np.random.default_rng(seed)
    drawn = rng.integers(prompts, size=(RESAMPLES, prompts))
    within = rng.integers(images, size=(RESAMPLES, images, prompts))
    means = held[drawn[:, None, :], within].mean(axis=(1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(held.mean()), float(low), float(high)


def row(method: Method, group: str, here: Sequence[Scored], scorers: Scorers) -> Row:
    """One line of a report; evaluations, time and memory are relative to the images without mitigation."""
    found: Row = {
        "method": method.name,
        "family": method.family,
        "peer": method.peer,
        "group": group,
        "paper": method.paper,
        "prompts": len(here),
        "images": sum(len(s.facts) for s in here),
        "images_compared": sum(len(s.similarity) for s in here if s.similarity is not None),
        **_copies(here, scorers),
    }
    for name in dict.fromkeys(k for s in here for k in s.aligned):  # NaN where the prompt does not ask for it
        parts = [s.aligned[name] for s in here if not np.isnan(s.aligned[name]).any()]
        found[name] = interval(parts)
    facts = [f for s in here for f in s.facts]
    pairs = [pair for s in here if s.plain for pair in zip(s.facts, s.plain, strict=True)]
    return found | {
        "diversity": interval([s.diversity for s in here if s.diversity is not None]),
        "unchanged": _mean([s.unchanged for s in here]),
        "evaluations": _ratio(pairs, "evaluations"),
        "evaluations_per_image": _mean([f.evaluations for f in facts]),
        "time": _ratio(pairs, "seconds"),
        "seconds_per_image": _mean([f.seconds for f in facts]),
        "memory": _ratio(pairs, "memory"),
        "told": {k: _mean([f.told.get(k) for f in facts]) for k in sorted({k for f in facts for k in f.told})},
    }


def _copies(here: Sequence[Scored], scorers: Scorers) -> Row:
    compared = [s for s in here if s.similarity is not None]
    if scorers.copies is None or not compared:
        return dict.fromkeys(("copies", "similarity", "similarity_95th", "similarity_most", "aligned_and_no_copy"))
    limit, each = scorers.copies.threshold, [s.similarity for s in compared]
    flat = np.concatenate(each)
    both = None
    if scorers.alignment and scorers.alignment.yes_or_no:
        both = interval([(s.aligned["aligned"] > 0) & (s.similarity <= limit) for s in compared])
    return {
        "copies": interval([s > limit for s in each]),
        "copies_second": interval([s.second > scorers.second.threshold for s in compared if s.second is not None]),
        "similarity": interval(each),
        "similarity_95th": float(np.percentile(flat, 95)),
        "similarity_most": float(flat.max()),
        "distance_5th": float(1 - np.percentile(flat, 95)),
        "distance_least": float(1 - flat.max()),
        "aligned_and_no_copy": both,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    held = [v for v in values if v is not None]
    return float(np.mean(held)) if held else None


def _ratio(pairs: Sequence[tuple[Facts, Facts]], cost: str) -> float | None:
    both = [(getattr(ours, cost), getattr(plain, cost)) for ours, plain in pairs]
    ratios = [ours / plain for ours, plain in both if ours is not None and plain]
    return float(np.median(ratios)) if ratios else None


def rows(
    images: Images, methods: Sequence[Method], cases: Sequence[Case], scorers: Scorers, compared: Compared
) -> list[Row]:
    groups, found = groups_of(cases), []
    for method in methods:
        every = {c: scored(images, method, c, images.wanted(method, c.group), scorers, compared(c)) for c in cases}
        for group, members in groups.items():
            if part := [here for c in members if (here := every[c])]:
                found.append(row(method, group, part, scorers))
    return found


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


@dataclass
class Experiment:
    """`matches`: the training images of a memorized prompt by its row; without it prompts are compared with all."""

    checkpoint: Checkpoint
    images: Images
    methods: Sequence[Method]
    cases: Sequence[Case]
    batches: Sequence[Batch]
    works: list[Work]
    make_scorers: Callable[[list[Tensor]], Scorers]  # from the training images, after sampling
    matches: dict[int, list[int]] | None = None
    copy_detector: Path | None = None
    side: int = 0  # the training images are read at least this large
    failed: dict[str, str] = field(default_factory=dict)

    def sample(self, minutes: float = float("inf")) -> None:
        """Make what is missing. Raises BenchmarkError if the folder holds images of another experiment."""
        self.claim()
        if any(m.references is not None for m in self.methods):
            folder = training_images.copy_to_input(self.works, self._captions(), self.checkpoint)
            self.checkpoint.training_images = folder
        self.failed = sample(self.checkpoint, self.images, self.methods, self.batches, minutes)

    def claim(self) -> None:
        references = training_images.digest(self.works, self._captions())
        for method in self.methods:
            made_by = self.checkpoint.made_by(method, references, self.copy_detector)
            self.images.claim(method, made_by, self.cases)

    def _captions(self) -> dict[int, str]:
        """Each training image's caption: the prompt that it belongs to, or else its caption file."""
        prompts = {c.row: c.text for c in self.cases if c.group == MEMORIZED}
        own = {i: prompts[row] for row, found in (self.matches or {}).items() if row in prompts for i in found}
        return {i: work.caption for i, work in enumerate(self.works)} | own

    def scorers(self) -> Scorers:
        from comfy import model_management

        model_management.unload_all_models()  # the scorers' networks are not the host's to make room for
        side = max(self.side, self.checkpoint.plan.size)
        return self.make_scorers(training_images.pixels(self.works, self.checkpoint, side))

    def rows(self, scorers: Scorers) -> list[Row]:
        found = rows(self.images, self.methods, self.cases, scorers, self._compared)
        self.images.record.save()
        return found

    def _compared(self, case: Case) -> Sequence[int]:
        """A memorized prompt is compared with its own training images, an ordinary one with all of them."""
        if self.matches is None or case.group != MEMORIZED:
            return range(len(self.works))
        return self.matches.get(case.row, [])

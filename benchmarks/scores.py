"""From images to rows: the scores of each method and group of prompts, with 95 % intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cases import Case, groups_of
from .checkpoint import Facts
from .methods import NONE, Method
from .sampling import Images
from .scorers import Scorers

RESAMPLES = 1000
Interval = tuple[float, float, float]  # estimate, and the bounds of 95 %
Row = dict[str, Any]
Compared = Callable[[Case], Sequence[int]]  # the training images that a prompt's images are compared with


@dataclass
class Scored:
    """One prompt under one method; arrays (images,)."""

    case: Case
    similarity: np.ndarray | None  # None: there is no training image to compare with
    second: np.ndarray | None  # the same by a second measure
    aligned: dict[str, np.ndarray]
    diversity: float | None
    facts: list[Facts]
    # Without mitigation, from the same noise; None if those images are not there:
    plain: list[Facts] | None = None
    unchanged: float | None = None  # share of images that are bit-identical to them


def score(images: np.ndarray, facts: list[Facts], case: Case, scorers: Scorers, works: Sequence[int]) -> Scored:
    measures = (scorers.copies, scorers.second)
    similar = [m.similarity(images, works) if m and len(works) else None for m in measures]
    aligned = scorers.alignment.score(images, case.text) if scorers.alignment else {}
    spread = scorers.diversity.spread(images) if scorers.diversity and len(images) > 1 else None
    return Scored(case, *similar, aligned, spread, facts)


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
        "copies_each": {s.case.text: float((s.similarity > limit).mean()) for s in compared},
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
        here: dict[Case, Scored] = {}
        for case in cases:
            if not images.complete(method, case):
                continue
            wanted = images.wanted(method, case.group)
            made, facts = images.read(method, case, wanted)
            here[case] = score(made, facts, case, scorers, compared(case))
            if images.there(NONE, case, wanted):
                others, here[case].plain = images.read(NONE, case, wanted)
                here[case].unchanged = float((made == others).all(axis=(1, 2, 3)).mean())
        for group, members in groups.items():
            if part := [here[c] for c in members if c in here]:
                found.append(row(method, group, part, scorers))
    return found

"""From pictures to rows: every score of a method and group, with 95 % intervals over prompts.

Rows have the keys of the lab's benchmark, so that its page can show them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cases import MEMORIZED, Case, groups_of
from .methods import NONE, Method
from .sample import Facts, Pictures
from .scorers import Scorers
from .training import Matches

RESAMPLES = 1000
Interval = tuple[float, float, float]  # estimate, and the bounds of 95 %


@dataclass
class Scored:
    """One prompt under one method; arrays (images,)."""

    similarity: np.ndarray | None  # None: nothing to compare with
    aligned: np.ndarray | None
    diversity: float | None
    unchanged: float | None  # share of pictures that are those of no mitigation, bit for bit
    facts: list[Facts]

    @property
    def evaluations(self) -> float:
        return float(np.mean([f.evaluations for f in self.facts]))

    @property
    def seconds(self) -> float:
        return float(np.mean([f.seconds for f in self.facts]))


def scored(pictures: Pictures, method: Method, case: Case, scorers: Scorers, matches: Matches, works: int) -> Scored:
    """A memorized prompt is compared with its own training pictures, an ordinary one with all there are."""
    made, facts = pictures.read(method, case)
    own = matches.works.get(case.row, []) if case.group == MEMORIZED else range(works)
    similar = scorers.copies.similarity(made, own) if scorers.copies and len(own) else None
    aligned = scorers.alignment.score(made, case.text) if scorers.alignment else None
    spread = scorers.diversity.spread(made) if scorers.diversity and len(made) > 1 else None
    same = None
    if pictures.complete(NONE, case):
        plain, _ = pictures.read(NONE, case)
        same = float(np.mean([bool((a == b).all()) for a, b in zip(made, plain, strict=True)]))
    return Scored(similar, aligned, spread, same, facts)


def interval(values: Sequence[np.ndarray] | Sequence[float], seed: int = 0) -> Interval | None:
    """Mean over prompts of each prompt's mean; prompts are drawn anew for the interval. None without values."""
    means = np.array([np.mean(v) for v in values])
    if not len(means):
        return None
    rng = np.random.default_rng(seed)
    drawn = means[rng.integers(len(means), size=(RESAMPLES, len(means)))].mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(means.mean()), float(low), float(high)


def row(
    method: Method, group: str, here: dict[int, Scored], plain: dict[int, Scored], scorers: Scorers
) -> dict[str, Any]:
    """One line of the report. `here`, `plain`: by prompt, of the method and of no mitigation."""
    compared = [s.similarity for s in here.values() if s.similarity is not None]
    aligned = [s.aligned for s in here.values() if s.aligned is not None]
    pairs = [(s, plain[k]) for k, s in here.items() if k in plain]
    found: dict[str, Any] = {
        "method": method.name,
        "family": method.family,
        "peer": method.peer,
        "group": group,
        "paper": method.paper,
        "prompts": len(here),
        "pictures": sum(len(s.facts) for s in here.values()),
        "pictures_compared": sum(map(len, compared)),
    }
    found |= dict.fromkeys(("copies", "similarity", "similarity_95th", "similarity_most"))
    if scorers.copies and compared:
        flat, limit = np.concatenate(compared), scorers.copies.threshold
        found |= {
            "copies": interval([s > limit for s in compared]),
            "similarity": interval(compared),
            "similarity_95th": float(np.percentile(flat, 95)),
            "similarity_most": float(flat.max()),
            "distance_5th": float(1 - np.percentile(flat, 95)),
            "distance_least": float(1 - flat.max()),
        }
        if scorers.alignment and scorers.alignment.yes_or_no:
            both = [(s.aligned, s.similarity) for s in here.values() if s.similarity is not None]
            found["aligned_and_no_copy"] = interval([(a > 0) & (s <= limit) for a, s in both])
    told = sorted({key for s in here.values() for f in s.facts for key in f.told})
    return found | {
        "aligned": interval(aligned),
        "diversity": _mean([s.diversity for s in here.values()]),
        "diversity_interval": interval([s.diversity for s in here.values() if s.diversity is not None]),
        "unchanged": _mean([s.unchanged for s in here.values()]),
        "evaluations": _median([a.evaluations / b.evaluations for a, b in pairs if b.evaluations]),
        "evaluations_per_picture": _mean([s.evaluations for s in here.values()]),
        "time": _median([a.seconds / b.seconds for a, b in pairs if b.seconds]),
        "seconds_per_picture": _mean([s.seconds for s in here.values()]),
        "told": {k: _mean([f.told.get(k) for s in here.values() for f in s.facts]) for k in told},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    held = [v for v in values if v is not None]
    return float(np.mean(held)) if held else None


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def rows(
    pictures: Pictures, methods: list[Method], cases: list[Case], scorers: Scorers, matches: Matches, works: int
) -> list[dict[str, Any]]:
    """A row a method and group, of the prompts that have all their pictures."""
    groups, found = groups_of(cases), []
    plain: dict[tuple[str, int], Scored] = {}
    for method in sorted(methods, key=lambda m: m is not NONE):  # costs are told relative to no mitigation
        here = {
            (c.group, c.row): scored(pictures, method, c, scorers, matches, works)
            for c in cases
            if pictures.complete(method, c)
        }
        plain = here if method is NONE else plain
        for group, members in groups.items():
            keys = [(c.group, c.row) for c in members]
            part, against = ({k[1]: of[k] for k in keys if k in of} for of in (here, plain))
            if part:
                found.append(row(method, group, part, against, scorers))
    return found

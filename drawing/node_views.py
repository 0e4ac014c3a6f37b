"""What a node shows of its run in the page: plain data that web/ draws. web/types.mjs describes the fields."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from ..mitigation.amg.trace import GUIDANCES, GuidanceTrace
from ..mitigation.escape.curve import EscapeCurve
from ..mitigation.noise.report import NoiseReport
from ..mitigation.references.reference_set import ReferenceSet

View = dict[str, Any]
DIGITS = 4
MOST_SHOWN, THUMBNAIL_SIDE = 8, 64  # nearest references, and the pixels of each


def escape_view(curve: EscapeCurve, *, done: bool, notes: Sequence[str] = (), alarm: bool = False) -> View:
    """d and the pull over the steps, and where guidance begins. `alarm`: warn if the prompt is in a basin."""
    warns, starts = alarm and bool(curve.memorized.any()), "starts" if int(curve.memorized.sum()) == 1 else "start"
    return _view(
        "escape",
        curve.escape_alone if warns else curve.headline,
        done,
        notes=[*notes, *([curve.hint] if curve.hint else [])],
        warning=f"Memorized prompt: {curve.inside} {starts} inside a basin." if warns else curve.warning,
        steps=curve.steps,
        series=[
            _series("pull of the prompt", curve.pull, [curve.threshold], "memorized_threshold"),
            _series("guidance magnitude d/√dim", curve.relative),
        ],
        marked=curve.memorized.tolist(),
        begins=curve.transition.tolist(),
    )


def noise_view(
    headline: str, magnitudes: Tensor, target: float | None, *, done: bool, notes: Sequence[str] = (), warning: str = ""
) -> View:
    """d/√dim (B, iterations) against the target, both relative."""
    return _view(
        "noise",
        headline,
        done,
        notes=list(notes),
        warning=warning,
        steps=magnitudes.shape[1],
        x="iteration",
        series=[_series("guidance magnitude d/√dim", magnitudes, [] if target is None else [target], "target")],
        marked=(magnitudes[:, -1] > (math.inf if target is None else target)).tolist(),
    )


def report_view(report: NoiseReport, notes: Sequence[str] = ()) -> View:
    """The finished optimization."""
    history = report.relative(report.history).T
    best = history if report.method == "batch-wise" else history.cummin(dim=1).values
    target = None if report.target is None else float(report.relative(report.target))
    return noise_view(report.headline, best, target, done=True, notes=[*report.remarks, *notes], warning=report.missed)


def guidance_view(trace: GuidanceTrace, references: ReferenceSet, notes: Sequence[str] = (), *, done: bool) -> View:
    """Closeness against λ_t, which guidance acted where, and the references that images came close to."""
    return _view(
        "guidance",
        trace.headline(references.names),
        done,
        notes=[*notes, trace.hint] if trace.hint else list(notes),
        warning=trace.warning if done else "",
        steps=trace.steps,
        series=[_series("closeness to references", trace.closeness, trace.threshold.tolist(), "threshold λ")],
        marked=trace.acted.any(dim=1).tolist(),
        acted={name: _numbers(getattr(trace, name)) for name in GUIDANCES},
        nearest=_nearest(trace, references) if done else [],
    )


def text_view(text: str, warning: str = "", suggested: Mapping[str, float] | None = None) -> View:
    """A text, with its first line as the headline, without the lines that the warning has.

    `suggested`: values that the page can write into inputs of other nodes, by the inputs' names.
    """
    headline, *rest = (line for line in text.splitlines() if line and line not in warning)
    values = {name: _number(value) for name, value in (suggested or {}).items()}
    return _view("text", headline, True, notes=rest, warning=warning, suggested=values)


def _view(kind: str, headline: str, done: bool, **more: Any) -> View:
    text: View = {"kind": kind, "headline": headline, "done": done, "notes": [], "warning": "", "suggested": {}}
    plot: View = {
        "steps": 0,
        "x": "step",
        "series": [],
        "marked": [],
        "begins": [],
        "acted": {},
        "nearest": [],
        "words": [],
    }
    return {**text, **plot, **more}


def _series(y: str, lines: Tensor, limit: Sequence[float] = (), limit_name: str = "") -> View:
    return {"y": y, "lines": _numbers(lines), "limit": [_number(v) for v in limit], "limit_name": limit_name}


def _number(value: float) -> float | None:
    """Rounded to DIGITS; None for NaN, which JSON does not have."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _numbers(values: Tensor) -> list[list[float | None]]:
    return [[_number(v) for v in row] for row in values.tolist()]


def _nearest(trace: GuidanceTrace, references: ReferenceSet) -> list[dict[str, Any]]:
    """The references that the steered images came closest to, each once, the closest first."""
    closeness, rows = trace.closest()
    found: dict[int, float] = {}
    for i in closeness.argsort(descending=True).tolist():
        if trace.acted[i].any():
            found.setdefault(int(rows[i]), float(closeness[i]))
    return [
        {"name": references.names[row], "closeness": _number(close), "picture": _thumbnail(references, row)}
        for row, close in list(found.items())[:MOST_SHOWN]
    ]


def _thumbnail(references: ReferenceSet, row: int) -> str:
    """A data URL, "" where the set has no thumbnails."""
    if references.thumbnails is None:
        return ""
    image = Image.fromarray(references.thumbnails[row].numpy())
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

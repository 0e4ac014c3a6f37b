"""What a node shows of its run in the page: plain data, drawn by web/. The fields: web/types.mjs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from ..mitigation.amg.trace import GUIDANCES, GuidanceTrace
from ..mitigation.escape.curve import EscapeCurve
from ..mitigation.noise.report import NoiseReport
from ..mitigation.references.reference_set import ReferenceSet

View = dict[str, Any]
DIGITS = 4
PICTURES = 8  # nearest references shown
PICTURE_SIDE = 64


def escape_view(curve: EscapeCurve, *, done: bool, notes: Sequence[str] = (), alarm: bool = False) -> View:
    """d and the pull over the steps, and where guidance begins. `alarm`: a prompt in a basin is worth a warning."""
    inside = int(curve.memorized.sum())
    warning = ""
    if alarm and inside:
        warning = f"Memorized prompt: {inside} of {curve.batch} picture(s) start inside a basin."
    return _view(
        "escape",
        curve.headline,
        done,
        notes=[*notes, *([curve.hint] if curve.hint else [])],
        warning=warning,
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
    last = magnitudes[:, -1] if magnitudes.numel() else magnitudes.sum(dim=1)
    marked = [False] * len(magnitudes) if target is None else (last > target).tolist()
    return _view(
        "noise",
        headline,
        done,
        notes=list(notes),
        warning=warning,
        steps=magnitudes.shape[1],
        x="iteration",
        series=[_series("guidance magnitude d/√dim", magnitudes, [] if target is None else [target], "target")],
        marked=marked,
    )


def report_view(report: NoiseReport, notes: Sequence[str] = ()) -> View:
    """The finished optimization."""
    history = report.relative(report.history).T if report.history.numel() else report.relative(report.before)[:, None]
    best = history if report.method == "batch-wise" else history.cummin(dim=1).values
    target = None if report.target is None else float(report.relative(report.target))
    return noise_view(report.headline, best, target, done=True, notes=[*report.remarks, *notes], warning=report.missed)


def guidance_view(trace: GuidanceTrace, references: ReferenceSet, *, done: bool) -> View:
    """Closeness against λ_t, which guidance acted where, and the references that pictures came close to."""
    return _view(
        "guidance",
        trace.headline,
        done,
        notes=[trace.hint] if trace.hint else [],
        steps=trace.steps,
        series=[_series("closeness to references", trace.closeness, trace.threshold.tolist(), "threshold λ")],
        marked=trace.acted.any(dim=1).tolist(),
        acted={name: _numbers(getattr(trace, name)) for name in GUIDANCES},
        nearest=_nearest(trace, references) if done else [],
    )


def text_view(text: str, warning: str = "") -> View:
    """What a node has to say in words: the first line, and the others below it."""
    headline, *rest = filter(None, text.splitlines())
    return _view("text", headline, True, notes=rest, warning=warning)


def _view(kind: str, headline: str, done: bool, **more: Any) -> View:
    empty: View = {
        "notes": [],
        "warning": "",
        "steps": 0,
        "x": "step",
        "series": [],
        "marked": [],
        "begins": [],
        "acted": {},
        "nearest": [],
    }
    return {"kind": kind, "headline": headline, "done": done, **empty, **more}


def _series(y: str, lines: Tensor, limit: Sequence[float] = (), limit_name: str = "") -> View:
    return {"y": y, "lines": _numbers(lines), "limit": [_number(v) for v in limit], "limit_name": limit_name}


def _number(value: float) -> float | None:
    """Short, and JSON knows no NaN."""
    return float(f"{value:.{DIGITS}g}") if abs(value) < float("inf") else None


def _numbers(values: Tensor) -> list[list[float | None]]:
    return [[_number(v) for v in row] for row in values.tolist()]


def _nearest(trace: GuidanceTrace, references: ReferenceSet) -> list[dict[str, Any]]:
    """The references that the steered samples were closest to, each once, the closest first."""
    found: dict[int, float] = {}
    for sample in trace.acted.any(dim=1).nonzero().flatten().tolist():
        seen = trace.closeness[sample].nan_to_num(-1)
        row = int(trace.nearest[sample, int(seen.argmax())])
        found[row] = max(found.get(row, -1.0), float(seen.max()))
    best = sorted(found.items(), key=lambda item: -item[1])[:PICTURES]
    return [
        {"name": references.names[row], "closeness": _number(close), "picture": _picture(references, row)}
        for row, close in best
    ]


def _picture(references: ReferenceSet, row: int) -> str:
    if references.thumbnails is None:
        return ""
    picture = Image.fromarray(references.thumbnails[row].numpy())
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

"""What Memorization Guard (Simple) shows: of its parts, which end in any order, one view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..adapter.live_view import LiveView
from ..mitigation.wording import counted
from .node_views import View, escape_view, text_view

if TYPE_CHECKING:
    from ..mitigation.amg.trace import GuidanceTrace
    from ..mitigation.escape.curve import EscapeCurve
    from ..mitigation.noise.report import NoiseReport
    from ..mitigation.references.reference_set import ReferenceSet


@dataclass
class GuardView:
    """What each part of the guard says when it ends; the view holds all of it. `hints`: lines that stay."""

    live: LiveView
    hints: list[str]
    measured: str = ""
    searched: str = ""
    loud: Tensor | None = None  # (B,) bool: the noises that still pull, because no quiet one was found
    steered: str = ""
    curve: EscapeCurve | None = None

    def begin(self, measured: str) -> None:
        self.measured, self.steered, self.curve = measured, "", None

    def show_measuring(self, prompts: int) -> None:
        said = f"Measuring {counted(prompts, 'ordinary prompt')} on your model, once for this size and cfg."
        self.live.show(lambda: {**text_view(said), "done": False})

    def view(self, curve: EscapeCurve, done: bool) -> View:
        notes = (self.measured, self.searched, self.steered, *self.hints)
        return escape_view(curve, done=done, notes=[n for n in notes if n])

    def finish_search(self, report: NoiseReport | None) -> None:
        self.searched, self.loud = "", None if report is None else report.after >= report.keep_below
        if report is not None and (changed := report.iterations > 0).any():
            still = int(((report.after >= report.keep_below) & changed).sum())
            self.searched = (
                f"{int(changed.sum())} of {counted(len(changed), 'image')} began with different noise, because the "
                "seed's own pulled too hard." + (f" The new noise still pulls in {still}." if still else "")
            )

    def show_curve(self, curve: EscapeCurve) -> None:
        self.live.show(lambda: self.view(curve, done=False))

    def finish_curve(self, curve: EscapeCurve) -> None:
        self.curve = curve
        self.live.finish(self.view(curve, done=True))

    def finish_trace(self, trace: GuidanceTrace, references: ReferenceSet) -> None:
        self.steered = trace.headline(references.names)
        if self.curve is not None:  # the deferral ended first
            self.live.finish(self.view(self.curve, done=True))

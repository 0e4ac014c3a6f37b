"""What Memorization Guard (Simple) shows: of its parts, which end in any order, one view."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..adapter.live_view import LiveView
from ..mitigation.escape.calibration import LEAST_RATIO
from ..mitigation.wording import counted
from .node_views import View, escape_view, text_view

if TYPE_CHECKING:
    from ..mitigation.amg.trace import GuidanceTrace
    from ..mitigation.escape.curve import EscapeCurve
    from ..mitigation.noise.report import NoiseReport
    from ..mitigation.references.reference_set import ReferenceSet

NEAR = 1.5  # times the threshold


@dataclass
class GuardView:
    """What each part of the guard says when it ends; the view holds all of it. `hints`: lines that stay."""

    live: LiveView
    hints: list[str]
    measured: str = ""
    ordinary: float = math.inf  # what an ordinary prompt pulls with
    above: str = ""  # advice for a prompt that pulls a little harder than the threshold
    below: str = ""  # and for one that pulls much harder than ordinary ones, but below the threshold
    behind: str = ""  # what another node did to the model after the guard
    searched: str = ""
    kept: str = ""
    loud: Tensor | None = None  # (B,) bool: the noises that still pull, because no quiet one was found
    steered: str = ""
    curve: EscapeCurve | None = None

    def begin(self, ordinary: float = math.inf, above: str = "", below: str = "", behind: str = "") -> None:
        """A run begins; without `ordinary`, one that measures nothing."""
        measured = f"Measured on this model: an ordinary prompt pulls with {ordinary:.4f}."
        self.measured = measured if math.isfinite(ordinary) else ""
        self.ordinary, self.above, self.below, self.behind = ordinary, above, below, behind
        self.steered, self.curve = "", None

    def show_measuring(self, prompts: int) -> None:
        said = f"Measuring {counted(prompts, 'ordinary prompt')} on your model, once for this size and cfg."
        self.live.show(lambda: {**text_view(said), "done": False})

    def view(self, curve: EscapeCurve, done: bool) -> View:
        """The whole view. An image that was saved by its new noise must not be called fine."""
        notes = (
            self.measured,
            self._advice(curve) if done else "",
            self.searched,
            self.kept,
            self.steered,
            self.behind,
            *self.hints,
        )
        view = escape_view(curve, done=done, notes=[n for n in notes if n])
        if self.searched and view["headline"] == f"Fine: {curve.quiet}":
            view["headline"] = f"Memorized prompt, but no strong pull is left: {curve.quiet}"
        return view

    def _advice(self, curve: EscapeCurve) -> str:
        """What to do about a pull that is near the threshold, or ""."""
        pull = float(curve.pull[:, :1].max()) if curve.steps else math.nan
        if bool(curve.memorized.any()):
            return self.above if pull < NEAR * curve.threshold else ""
        times = pull / self.ordinary
        if not self.below or not times >= LEAST_RATIO:
            return ""
        return f"Your prompt pulls {times:.1f} times as hard. If an image looks like a copy, {self.below}."

    def finish_search(self, report: NoiseReport | None, kept: str = "") -> None:
        """`kept`: why a run begins with the noise that it was given, whatever the prompt does with it."""
        self.searched, self.kept, self.loud, self.steered, self.curve = "", kept, None, "", None
        if report is None:
            return
        self.loud = report.after >= report.keep_below
        moved, still, said = int((report.iterations > 0).sum()), int(self.loud.sum()), []
        if moved:
            images = counted(len(self.loud), "image")
            said.append(f"{moved} of {images} began with different noise, because the seed's own pulled too hard.")
        if still:
            said.append(f"For {counted(still, 'image')}, every noise that was tried pulls too hard.")
        self.searched = " ".join(said)
        if said:  # another node's deferral may have replaced the guard's, and then no curve follows
            self.live.finish(text_view(self.searched))

    def show_curve(self, curve: EscapeCurve) -> None:
        self.live.show(lambda: self.view(curve, done=False))

    def finish_curve(self, curve: EscapeCurve) -> None:
        self.curve = curve
        self.live.finish(self.view(curve, done=True))

    def finish_trace(self, trace: GuidanceTrace, references: ReferenceSet) -> None:
        self.steered = trace.headline(references.names)
        if self.curve is not None:  # the deferral ended first
            self.live.finish(self.view(self.curve, done=True))

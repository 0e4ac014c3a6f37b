"""What a deferral does, from the inputs that the sampler, the guider and the model patch share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...mitigation.escape.curve import EscapeCurve
from ...mitigation.escape.rules import EscapeRule

MODES = ["dynamic", "static", "off"]
OnCurve = Callable[[EscapeCurve], object]


@dataclass(frozen=True)
class DeferralPlan:
    """Immutable, so that a patched model can be sampled any number of times."""

    rule: EscapeRule | None = None  # measure and decide by this rule; None: switch by schedule alone
    start_percent: float = 0.0  # the host's percent: guided from here on, at the latest
    inside_scale: float = 0.0  # g₀
    transition_sigma: Tensor | None = None  # (B,) known transition points, from a curve
    inside: Tensor | None = None  # (B,) bool: these begin inside a basin, whatever the first step shows
    null: list | None = None  # CONDITIONING to measure against; None: the negative prompt
    node: str = "Deferred CFG"
    not_escaped: str = ""  # behind "2 of 4 images", where start_percent came first; "": to raise it
    too_late: str = ""  # the sentence for a run that starts after start_percent; "": one that names both
    unguided: str = "this node changed nothing"  # what a run without guidance means
    on_end: OnCurve | None = None
    on_step: OnCurve | None = None


def plan_from_inputs(
    mode: str,
    pre_escape_cfg: float,
    start_percent: float,
    rule: str,
    drop_ratio: float,
    memorized_threshold: float,
    *,
    curve: EscapeCurve | None = None,
    **more: Any,
) -> DeferralPlan | None:
    """What the nodes' inputs ask for; None when nothing is deferred. `more`: other fields of the plan."""
    if mode == "off":
        return None
    measured = mode == "dynamic" and curve is None
    return DeferralPlan(
        rule=EscapeRule(rule, drop_ratio, memorized_threshold) if measured else None,  # type: ignore[arg-type]
        start_percent=start_percent,
        inside_scale=pre_escape_cfg,
        transition_sigma=curve.transition_sigma if mode == "dynamic" and curve is not None else None,
        **more,
    )

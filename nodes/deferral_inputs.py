"""What the sampler, the guider and the model patch share: the inputs of a deferral and what they mean."""

from __future__ import annotations

from comfy_api.latest import io

from ..adapter.errors import GuardError
from ..methods.deferred_cfg import DeferralPlan
from ..mitigation.escape.rules import EscapeRule
from . import schema

MODES = ["dynamic", "static", "off"]


def mode_inputs() -> list:
    """mode, pre_escape_cfg, start_percent and the rule's three."""
    return [
        io.Combo.Input(
            "mode",
            options=MODES,
            default="dynamic",
            tooltip="Dynamic: measures each picture and guides it as soon as it has left the basin. Static: "
            "guides from start_percent on, half the cost before it. Off: nothing is changed.",
        ),
        io.Float.Input(
            "pre_escape_cfg",
            default=0.0,
            min=-30.0,
            max=30.0,
            step=0.1,
            tooltip="CFG scale inside the basin: 0 ignores the prompt, 1 follows it without guidance, negative "
            "values push away from it and leave the basin faster (opposite guidance, −1 to −9).",
        ),
        io.Float.Input(
            "start_percent",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Static: guidance starts here (0 is the start of sampling, 1 its end). Dynamic: it starts "
            "here at the latest. Later means fewer copies and less of the prompt.",
        ),
        *schema.rule_inputs(),
    ]


def curve_input():
    return schema.Curve.Input(
        "curve",
        optional=True,
        tooltip="Dynamic: use the detector's transition points instead of measuring (rule, drop_ratio and "
        "memorized_threshold are then not used): one model evaluation a step before the escape, not two.",
    )


def deferral_of(
    mode,
    pre_escape_cfg,
    start_percent,
    rule,
    drop_ratio,
    memorized_threshold,
    *,
    curve,
    null,
    node: str,
    on_end=None,
    on_step=None,
) -> DeferralPlan | None:
    """What the inputs ask for; None when nothing is deferred."""
    if mode not in MODES:
        raise GuardError(f"{node}: `mode` is {mode!r}; choose one of {', '.join(MODES)}.")
    if mode == "off":
        return None
    measured = mode == "dynamic" and curve is None
    return DeferralPlan(
        rule=EscapeRule(rule, drop_ratio, memorized_threshold) if measured else None,
        start_percent=start_percent,
        inside_scale=pre_escape_cfg,
        transition_sigma=curve.transition_sigma if mode == "dynamic" and curve is not None else None,
        null=null,
        node=node,
        on_end=on_end,
        on_step=on_step,
    )

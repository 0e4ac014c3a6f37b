"""The papers' methods with the papers' constants.

[HAN] 2510.08625, [JAIN] 2411.16738, [AMG] 2404.00922; a constant from released code is marked as such.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..methods import NONE, Method, deferred

T = 999  # the host's percent p is the timestep (1 − p)·999


@dataclass(frozen=True)
class Constants:
    """What the papers found for a model."""

    targets: tuple[float, ...]  # l_target of the per-sample method, absolute d
    learning_rate: float
    max_iterations: int
    radius: float  # ρ
    adjustments: int  # M
    cfg_from: float  # τ, a timestep


CONSTANTS = {
    "sd1.4": Constants((0.9,), 0.01, 1000, 50.0, 2, 900.0),
    "sd2.0": Constants((5.0, 10.0, 20.0), 0.1, 1000, 30.0, 4, 917.4),
    # 576 latent elements, not 16,384: targets and radius scale with √dim, and steps have to be larger (docs/noise.md).
    "lab": Constants((0.36,), 0.03, 80, 9.5, 2, 0.7 * T),
}
AUTHORS_AMG = {
    "despecification": 13.0,
    "deduplication": 13.0,  # from 8.7 on the authors' clamp((6.5 − s₁)σ/0.3, 0, 6.5 − s₁), gated at σ > 0.3: its cap
    "threshold_min": 0.3,
    "threshold_max": 0.4,
    "threshold_schedule": "exponential",
}


def methods_for(model: str) -> list[Method]:
    """Every method with the constants for a model: a key of CONSTANTS."""
    c = CONSTANTS[model]
    per_sample = {
        "method": "per-sample",
        "target_units": "absolute",
        "learning_rate": c.learning_rate,
        "max_iterations": c.max_iterations,
        "constraint": "free",
    }
    batch_wise = {"method": "batch-wise", "sharpness_radius": c.radius, "adjustments": c.adjustments}
    released = {"rule": "local minimum", "memorized_threshold": 0.0, "start_percent": 1.0}
    alone = {**AUTHORS_AMG, "deduplication": 0.0, "dissimilarity": 0.0}
    by_sscd, by_latent = {"references": {"metric": "descriptor"}}, {"references": {"metric": "latent"}}
    targets = [(f"l_target {target:g}", {**per_sample, "target_magnitude": target}) for target in c.targets]
    han = deferred("static", start_percent=percent(c.cfg_from))
    late = deferred("static", start_percent=percent(500))
    opposite = deferred("static", start_percent=percent(650), pre_escape_cfg=-2.0)
    minimum = deferred("dynamic", **released)
    minimum_opposite = deferred("dynamic", **released, pre_escape_cfg=-2.0)
    return [
        NONE,
        *(Method("Han per-sample", name, {"noise": noise}, paper="[HAN] individual") for name, noise in targets),
        Method("Han batch-wise", f"CFG from t {c.cfg_from:g}", {"noise": batch_wise, **han}, paper="[HAN] collective"),
        Method("Jain static", "CFG from t 500", late, paper="[JAIN] code"),
        Method("Jain static", "g₀ −2 until t 650", opposite, paper="[JAIN] code, opposite guidance"),
        Method("Jain dynamic", "g₀ 0", minimum, paper="[JAIN] local minimum"),
        Method("Jain dynamic", "g₀ 1", deferred("dynamic", **released, pre_escape_cfg=1.0), True, "[JAIN] code"),
        Method("Jain dynamic", "g₀ −2", minimum_opposite, paper="[JAIN] local minimum, opposite guidance"),
        Method("AMG SSCD", "despecification alone", {**by_sscd, "guidance": alone}, paper="[AMG] G_spe"),
        Method("AMG SSCD", "all three", {**by_sscd, "guidance": AUTHORS_AMG}, paper="[AMG] Main"),
        Method("AMG latent", "defaults", {**by_latent, "guidance": {}}, paper="this pack"),
        Method(
            "AMG latent",
            "where the prompt pulls",
            {**by_latent, "guidance": {"memorized_threshold": 0.02}},
            paper="this pack",
        ),
        Method("dynamic", "sharp drop", deferred("dynamic"), paper="this pack"),
    ]


def percent(timestep: float) -> float:
    """The host's percent at which guidance begins, so that it is used at all timesteps at or below this one."""
    return (T - timestep) / T

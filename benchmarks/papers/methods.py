"""What is compared: the papers' methods with the papers' constants, as inputs of our nodes.

A method is data: which inputs of Noise Optimizer, AMG Guidance and Deferred-CFG KSampler differ from the
nodes' defaults. `no mitigation` is the host's own KSampler.

[HAN] 2510.08625, [JAIN] 2411.16738, [AMG] 2404.00922; where a constant is the released code's, it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .cases import PapersError

Inputs = dict[str, Any]
NODES = {
    "noise": "MG_NoiseOptimizer",
    "references": "MG_ReferencesFromFolder",
    "guidance": "MG_AMGGuidance",
    "sampler": "MG_DeferredCFGKSampler",
}
T = 999  # the host's percent p is the timestep (1 − p)·999
EVERY = "*"


@dataclass(frozen=True)
class Method:
    """`inputs`: node of NODES -> inputs that differ from its defaults; a node that is absent is not used."""

    family: str
    strength: str = ""
    inputs: Mapping[str, Inputs] = field(default_factory=dict)
    peer: bool = False  # others' released code, not a method of this pack
    paper: str = ""  # what it reproduces, for the report

    @property
    def name(self) -> str:
        return f"{self.family}, {self.strength}" if self.strength else self.family

    @property
    def metric(self) -> str:
        """Of the references it needs; "" if it needs none."""
        return self.inputs.get("references", {}).get("metric", "") if "guidance" in self.inputs else ""


@dataclass(frozen=True)
class Constants:
    """What the papers found for a model."""

    targets: tuple[float, ...]  # l_target of the per-sample method, absolute d
    learning_rate: float
    max_iterations: int
    radius: float  # ρ
    adjustments: int  # M
    cfg_from: float  # τ, a timestep
    amg: Inputs  # of the SSCD metric


AUTHORS_AMG = {
    "despecification": 13.0,
    "deduplication": 13.0,  # from 8.7 on the authors' clamp((6.5 − s₁)σ/0.3, 0, 6.5 − s₁), gated at σ > 0.3: its cap
    "threshold_min": 0.3,
    "threshold_max": 0.4,
    "threshold_schedule": "exponential",
}
CONSTANTS = {
    "sd1.4": Constants((0.9,), 0.01, 1000, 50.0, 2, 900.0, AUTHORS_AMG),
    "sd2.0": Constants((5.0, 10.0, 20.0), 0.1, 1000, 30.0, 4, 917.4, AUTHORS_AMG),
    # 576 latent elements, not 16,384: targets and radius scale with √dim, and steps have to be larger (docs/noise.md).
    "lab": Constants((0.36,), 0.03, 80, 9.5, 2, 0.7 * T, AUTHORS_AMG),
}
NONE = Method("no mitigation")


def deferred(mode: str, **changed: Any) -> dict[str, Inputs]:
    return {"sampler": {"mode": mode, **changed}}


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
    alone = {**c.amg, "deduplication": 0.0, "dissimilarity": 0.0}
    pulling = {"memorized_threshold": 0.02}
    by_sscd, by_latent = {"references": {"metric": "descriptor"}}, {"references": {"metric": "latent"}}
    return [
        NONE,
        *(
            Method(
                "Han per-sample",
                f"l_target {target:g}",
                {"noise": {**per_sample, "target_magnitude": target}, **deferred("off")},
                paper="[HAN] individual",
            )
            for target in c.targets
        ),
        Method(
            "Han batch-wise",
            f"CFG from t {c.cfg_from:g}",
            {"noise": batch_wise, **deferred("static", start_percent=percent(c.cfg_from))},
            paper="[HAN] collective",
        ),
        Method("Jain static", "CFG from t 500", deferred("static", start_percent=percent(500)), paper="[JAIN] code"),
        Method(
            "Jain static",
            "g₀ −2 until t 650",
            deferred("static", start_percent=percent(650), pre_escape_cfg=-2.0),
            paper="[JAIN] code, opposite guidance",
        ),
        Method("Jain dynamic", "g₀ 0", deferred("dynamic", **released), paper="[JAIN] local minimum"),
        Method("Jain dynamic", "g₀ 1", deferred("dynamic", **released, pre_escape_cfg=1.0), True, "[JAIN] code"),
        Method(
            "Jain dynamic",
            "g₀ −2",
            deferred("dynamic", **released, pre_escape_cfg=-2.0),
            paper="[JAIN] local minimum, opposite guidance",
        ),
        Method("AMG SSCD", "despecification alone", {**by_sscd, "guidance": alone}, paper="[AMG] G_spe"),
        Method("AMG SSCD", "all three", {**by_sscd, "guidance": c.amg}, paper="[AMG] Main"),
        Method("AMG latent", "defaults", {**by_latent, "guidance": {}}, paper="this pack"),
        Method("AMG latent", "where the prompt pulls", {**by_latent, "guidance": pulling}, paper="this pack"),
        Method("dynamic", "sharp drop", deferred("dynamic"), paper="this pack"),
    ]


def percent(timestep: float) -> float:
    """The host's percent at which guidance begins, so that it is used at all timesteps at or below this one."""
    return (T - timestep) / T


def chosen(methods: list[Method], names: list[str] | None) -> list[Method]:
    """The methods whose name contains one of `names`, and always `no mitigation`. Raises PapersError."""
    if not names:
        return methods
    unknown = [n for n in names if not any(_has(m, n) for m in methods)]
    if unknown:
        known = "; ".join(m.name for m in methods)
        raise PapersError(f"--methods: no method is called {', '.join(unknown)}. There are: {known}.")
    return [m for m in methods if m is NONE or any(_has(m, n) for n in names)]


def _has(method: Method, name: str) -> bool:
    return name.casefold() in method.name.casefold()


def with_settings(methods: list[Method], settings: Mapping[str, Any]) -> list[Method]:
    """Methods with inputs changed: method's name, its family or * -> node of NODES -> inputs. Raises PapersError.

    With * and a family, nodes that a method does not have are passed over; with its full name they are added.
    """
    known = {EVERY, *(m.family for m in methods), *(m.name for m in methods)}
    for name, nodes in settings.items():
        if name not in known:
            raise PapersError(f"--settings: no method is called {name!r}. There are: {'; '.join(sorted(known))}.")
        if not isinstance(nodes, dict) or any(n not in NODES or not isinstance(i, dict) for n, i in nodes.items()):
            raise PapersError(
                f"--settings: under {name!r} may stand {', '.join(NODES)}, each with inputs of that node."
            )
    return [_changed(m, settings) if m is not NONE else m for m in methods]


def _changed(method: Method, settings: Mapping[str, Any]) -> Method:
    inputs = dict(method.inputs)
    for name in (EVERY, method.family, method.name):
        for node, changed in settings.get(name, {}).items():
            if node in inputs or name == method.name:
                inputs[node] = {**inputs.get(node, {}), **changed}
    return replace(method, inputs=inputs)

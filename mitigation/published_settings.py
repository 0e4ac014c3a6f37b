"""What the papers, or their authors' released code, set for each node: the choices of the inputs named `preset`.

[HAN] Appendix B; [JAIN] the README and the scripts of the released code; [AMG] the released code for Stable Diffusion.
docs/parity.md lists what cannot be equal, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]  # input -> value

CUSTOM = "custom"  # every input as it is set on the node
HAN_SD1_SAMPLE, HAN_SD1_BATCH = "Han 2025, SD 1.4, per-sample", "Han 2025, SD 1.4, batch-wise"
HAN_SD2_SAMPLE, HAN_SD2_BATCH = "Han 2025, SD 2, per-sample", "Han 2025, SD 2, batch-wise"
JAIN_STATIC, JAIN_DYNAMIC = "Jain 2025, static as released", "Jain 2025, dynamic as released"
AMG_RELEASED = "Chen 2024, AMG as released"

T_LAST = 999  # of Stable Diffusion's 1,000 timesteps
# The authors' pipeline for SD 2 keeps latents of this standard deviation (σ at t 999), and [HAN]'s constants act on
# them. For noise of standard deviation 1 the same trajectory needs constants in its units.
SD2_SCALE = 14.6146
STARTS = {HAN_SD1_SAMPLE: 981, HAN_SD1_BATCH: 981, HAN_SD2_SAMPLE: T_LAST, HAN_SD2_BATCH: T_LAST}  # T of the noise

_PER_SAMPLE = {
    "method": "per-sample",
    "target_units": "absolute",
    "max_iterations": 1000,
    "constraint": "free",
    "memorized_threshold": 0.0,
}
NOISE: dict[str, Settings] = {
    HAN_SD1_SAMPLE: {**_PER_SAMPLE, "target_magnitude": 0.9, "learning_rate": 0.01, "weight_decay": 0.01},
    HAN_SD1_BATCH: {"method": "batch-wise", "adjustment_strength": 0.7, "sharpness_radius": 50.0, "adjustments": 2},
    # The paper studies the targets 5, 8, 10, 15 and 20 and names none of them as its own: the middle one.
    HAN_SD2_SAMPLE: {
        **_PER_SAMPLE,
        "target_magnitude": 10.0,
        "learning_rate": 0.1 / SD2_SCALE,
        "weight_decay": 0.01 * SD2_SCALE,
    },
    HAN_SD2_BATCH: {
        "method": "batch-wise",
        "adjustment_strength": 0.7 / SD2_SCALE,
        "sharpness_radius": 30.0 / SD2_SCALE,
        "adjustments": 4,
    },
}


def percent(timestep: float) -> float:
    """The host's percent from which guidance acts at all timesteps t ≤ `timestep`."""
    return (T_LAST - timestep) / T_LAST


_DDIM = {"steps": 50, "sampler_name": "ddim", "scheduler": "ddim_uniform"}  # t 981, 961, … 1
_EULER = {"steps": 50, "sampler_name": "euler", "scheduler": "normal"}  # t 999, 978.61, … 0
_DPM = {"steps": 50, "sampler_name": "dpmpp_2m", "scheduler": "simple"}  # t 999, 979, … 19
_FROM_THE_START = {"mode": "off"}
SAMPLING: dict[str, Settings] = {
    HAN_SD1_SAMPLE: {**_DDIM, "cfg": 7.0, **_FROM_THE_START},
    HAN_SD1_BATCH: {**_DDIM, "cfg": 7.0, "mode": "static", "pre_escape_cfg": 0.0, "start_percent": percent(900)},
    HAN_SD2_SAMPLE: {**_EULER, "cfg": 7.0, **_FROM_THE_START},
    # τ is 917.4490, itself a step of the grid: 918 lies between it and the step before, so rounding cannot move it.
    HAN_SD2_BATCH: {**_EULER, "cfg": 7.0, "mode": "static", "pre_escape_cfg": 0.0, "start_percent": percent(918)},
    JAIN_STATIC: {**_DPM, "cfg": 7.5, "mode": "static", "pre_escape_cfg": 0.0, "start_percent": percent(500)},
    JAIN_DYNAMIC: {
        **_DPM,
        "cfg": 7.5,
        "mode": "dynamic",
        "pre_escape_cfg": 1.0,
        "start_percent": 1.0,
        "rule": "local minimum",
        "memorized_threshold": 0.0,
    },
    AMG_RELEASED: {**_DDIM, "cfg": 7.5, **_FROM_THE_START},
}
GUIDANCE: dict[str, Settings] = {
    AMG_RELEASED: {
        "despecification": 13.0,
        "deduplication": 1 / 0.3,  # of what despecification leaves of s₀ − 1
        "dissimilarity": 100.0,  # in the authors' unit, not multiplied by ‖D‖²
        "threshold_min": 0.3,
        "threshold_max": 0.4,
        "threshold_schedule": "exponential",
        "gradient": "through prediction",
        "dissimilarity_growth": "ramp",
        "every": 1,
        "memorized_threshold": 0.0,
    }
}


def applied(table: Mapping[str, Settings], preset: str, inputs: Settings) -> dict[str, Any]:
    """The inputs with the preset's values in their place."""
    return {**inputs, **table.get(preset, {})}


def inputs_set_by(table: Mapping[str, Settings]) -> list[str]:
    """The inputs that some preset of the table sets, in the order in which they first occur."""
    return list(dict.fromkeys(name for settings in table.values() for name in settings))


def sentence(table: Mapping[str, Settings], preset: str) -> list[str]:
    """What a preset sets, in words for the node, in a list; empty for `custom`."""
    if preset not in table:
        return []
    values = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in table[preset].items())
    start = f", T at timestep {STARTS[preset]}" if table is NOISE else ""
    return [f"Preset {preset}: {values}{start}."]

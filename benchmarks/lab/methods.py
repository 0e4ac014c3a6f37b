"""What the benchmark compares on the lab checkpoint: methods, their strengths, combinations and peers."""

from __future__ import annotations

from typing import Any

from ..methods import NONE, Inputs, Method, deferred
from .peers import adjusted_embedding, random_tokens

# The target lies below what the 16 memorized prompts show (0.038) and above ordinary ones (0.009); the lab's
# 576 latent elements need larger steps than SD's 16,384.
PER_SAMPLE = {"target_magnitude": 0.015, "learning_rate": 0.03, "max_iterations": 80}
BATCH_WISE = {"method": "batch-wise", "sharpness_radius": 9.5}  # ρ: 50 at 512×512, scaled with √dim
ALONE = {"despecification": 0.0, "deduplication": 0.0, "dissimilarity": 0.0}
# What Calibrate Thresholds suggests for the lab checkpoint from the 48 ordinary captions that the benchmark does not
# sample, one noise (tests/host/test_calibrate_and_plot.py).
GATED = {"memorized_threshold": 0.0217}


def guided(name: str, strength: str, others: dict[str, Inputs] | None = None, **changed: Any) -> Method:
    return Method(name, strength, {**(others or {}), "guidance": changed})


def noised(name: str, strength: str, noise: Inputs, others: dict[str, Inputs] | None = None) -> Method:
    return Method(name, strength, {"noise": noise, **(others or {})})


RECOMMENDED = guided("recommended: AMG", "where the prompt pulls", **GATED)
DYNAMIC = [Method("dynamic", f"drop {r}", deferred("dynamic", drop_ratio=r)) for r in (0.6, 0.5, 0.4)]
RELEASED = {"rule": "local minimum", "memorized_threshold": 0.0, "start_percent": 1.0, "pre_escape_cfg": 1.0}
METHODS = [
    NONE,
    RECOMMENDED,
    guided("AMG", "defaults"),
    guided("AMG", "thresholds 0.4 … 0.5", threshold_min=0.4, threshold_max=0.5),
    guided("AMG", "thresholds 0.6 … 0.7", threshold_min=0.6, threshold_max=0.7),
    guided("AMG", "despecification only", **{**ALONE, "despecification": 13.0}),
    guided("AMG", "dissimilarity only", **{**ALONE, "dissimilarity": 10.0}),
    *(Method("static", f"from {p:.0%}", deferred("static", start_percent=p)) for p in (0.3, 0.4, 0.5)),
    *DYNAMIC,
    Method("opposite guidance", "g₀ −1", deferred("dynamic", pre_escape_cfg=-1.0)),
    Method("opposite guidance", "g₀ −3", deferred("dynamic", pre_escape_cfg=-3.0)),
    noised("batch-wise", "then static 30 %", BATCH_WISE, deferred("static", start_percent=0.3)),
    noised("batch-wise", "then dynamic", BATCH_WISE, deferred("dynamic")),
    noised("per-sample", "to 0.020", {**PER_SAMPLE, "target_magnitude": 0.02}),
    noised("per-sample", "to 0.015", PER_SAMPLE),
    noised("search", "16 candidates", {"method": "search"}),
    guided("dynamic + AMG", "", deferred("dynamic")),
    guided("batch-wise + dynamic + AMG", "", {"noise": BATCH_WISE, **deferred("dynamic")}),
    *(Method("random tokens", str(n), peer=True, conditioning=random_tokens(n)) for n in (2, 4)),
    Method("embedding adjustment", "to 0.020", peer=True, conditioning=adjusted_embedding(0.020, most=10)),
    Method("embedding adjustment", "to 0.015", peer=True, conditioning=adjusted_embedding(0.015, most=40)),
    Method("local minimum as released", "g₀ 1", deferred("dynamic", **RELEASED), peer=True),
]
SMOKE = [NONE, RECOMMENDED, DYNAMIC[1]]

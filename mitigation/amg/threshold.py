"""λ_t: how close a prediction may come to a reference before it is steered away. [AMG] Sec. 4.3.

Early predictions are blurred averages and resemble every reference; late ones show the image. The paper describes
a "parabolic" threshold that rises as t → 0 and gives no constants; its released code uses exponentials.
`remaining` is t/T: 1 at the start of the noise schedule, 0 at its end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Schedule = Literal["parabolic", "exponential", "constant"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)
DECAY = 5.0  # the authors' exp(−0.005 t) with t = 1000·remaining


@dataclass(frozen=True)
class Threshold:
    """λ_t between `low` (at the start) and `high` (at the end), in units of closeness."""

    low: float = 0.5
    high: float = 0.6
    schedule: Schedule = "parabolic"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}: expected one of {', '.join(SCHEDULES)}")
        if self.low > self.high and self.schedule != "constant":
            raise ValueError(f"the threshold falls from {self.low} to {self.high}: it has to rise as t → 0")

    def at(self, remaining: float) -> float:
        """λ_t. parabolic: λ_min + (λ_max − λ_min)(1 − t/T)²; exponential: λ_min + (λ_max − λ_min)·exp(−5 t/T).

        The authors' code for Stable Diffusion is `exponential` from 0.3 to 0.4. constant: λ_min.
        """
        rise = {"parabolic": (1 - remaining) ** 2, "exponential": math.exp(-DECAY * remaining), "constant": 0.0}
        return self.low + (self.high - self.low) * rise[self.schedule]

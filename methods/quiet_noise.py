"""Begin with another noise where the seed's own lies inside a basin: a patch on a model, without gradients.

Whether a prompt copies depends on the noise ([HAN] Sec. 4.1), so often a quiet one is near. The candidates are the
seed's own noise in other orders, so they are as Gaussian as it is, and a sample's are the same in every batch.

The first one that is quiet enough is taken, not the quietest: where a prompt pulls less than most ordinary ones do,
the image often does not show what was asked (docs/why.md). One that is too loud so far is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..adapter.model_patch import replace_noise
from ..adapter.noise import is_drawn_noise
from ..adapter.sampled_model import model_of_run
from ..adapter.sampling import SamplingRun
from ..adapter.schedule import starts_late
from ..adapter.two_predictions import TwoPredictions, measure_in_run
from ..mitigation.escape.calibration import Calibration
from ..mitigation.noise.report import NoiseReport
from ..mitigation.noise.seed_search import rearranged, search_noise
from .self_calibration import judged, levels_ahead

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

KEY = "memorization_guard_noise"
OTHER_NOISE = (
    "The image does not begin with the noise that its seed gives, so this node kept the noise as it is. If the prompt "
    "pulls, this node only delays guidance."
)


@dataclass(frozen=True)
class NoiseSearch:
    """Which noise is quiet, and how often another one is tried."""

    null: list  # CONDITIONING of the empty prompt
    ordinary: Callable[[SamplingRun], Calibration]  # what ordinary prompts show ahead
    candidates: int
    quiet: float  # a candidate is taken up to this many times the ordinary prompts' median
    node: str
    on_end: Callable[[NoiseReport | None, str], None]  # None: a run that keeps its noise unmeasured, and why if it says


def add_noise_search(model: ModelPatcher, search: NoiseSearch) -> ModelPatcher:
    """A clone of `model` whose text-to-image runs begin with a noise that does not pull, where there is one."""

    def find(run: SamplingRun) -> Tensor:
        if not _can_begin_elsewhere(run):
            search.on_end(None, "")
            return run.noise
        if not is_drawn_noise(run.noise, run.seed):  # independent numbers alone may be put into another order
            search.on_end(None, OTHER_NOISE)
            return run.noise
        model = model_of_run(run.guider)
        ordinary, levels = search.ordinary(run), levels_ahead(model, float(run.sigmas[0]))
        threshold = ordinary.memorized_threshold

        def too_loud(so_far: Tensor) -> Tensor:
            return judged(so_far) >= threshold

        def body(pair: TwoPredictions, noise: Tensor) -> tuple[Tensor, NoiseReport]:
            def measure(i: int, x: Tensor, rows: Tensor) -> Tensor:
                return pair.magnitudes_ahead(x, rows, levels, enough=too_loud if i else None)

            return search_noise(
                lambda i: rearranged(noise, i),
                measure,
                judge=lambda found: judged(found).nan_to_num(torch.inf),  # given up
                candidates=search.candidates,
                target=min(search.quiet * ordinary.ordinary_magnitude, threshold),
                keep_below=threshold,
            )

        found, report = measure_in_run(body, run, model, search.node, search.null)
        search.on_end(report, "")
        return found.to(run.noise)

    return replace_noise(model, KEY, search.node, find)


def _can_begin_elsewhere(run: SamplingRun) -> bool:
    """A whole guided run of a prompt against a negative one."""
    if run.packed or run.mask is not None or len(run.sigmas) < 2 or starts_late(run.guider.model_patcher, run.sigmas):
        return False
    return run.guider.cfg != 1 and all(run.conds.get(name) for name in ("positive", "negative"))

"""The Basin-Escape Detector's run: the trajectory without CFG, until every sample has left the basin. [JAIN]"""

from __future__ import annotations

from dataclasses import replace

from ..adapter.model_call import SamplerCall
from ..adapter.sampling import SamplingInputs, StopSampling, run_euler
from ..mitigation.escape.curve import EscapeCurve
from .deferred_cfg.patch import add_deferred_cfg
from .deferred_cfg.plan import DeferralPlan
from .deferred_cfg.run import DeferralRun, Predictions

NEVER = 1.0  # start_percent of a run that is never guided
ANY_CFG = 2.0  # no sample is guided, but at 1 the host would not evaluate the second prediction


class DetectionRun(DeferralRun):
    """A deferral that ends the sampling when there is nothing left to measure."""

    splits_on_out_of_memory = True
    must_guide = False

    def _measure(self, call: SamplerCall, predictions: Predictions) -> None:
        super()._measure(call, predictions)
        if self.all_outside:
            raise StopSampling


def detect(plan: DeferralPlan, run: SamplingInputs) -> EscapeCurve:
    """Run Euler without CFG until every sample has left, and return the curve."""
    curves: list[EscapeCurve] = []
    unguided = replace(plan, start_percent=NEVER, inside_scale=0.0, on_end=curves.append)
    run_euler(replace(run, model=add_deferred_cfg(run.model, unguided, DetectionRun)), ANY_CFG)
    return curves[0]

"""∇σ_t through the network, CFG and the linear guidances: [AMG] Eq. 17 as the paper writes it."""

from __future__ import annotations

import torch
from torch import Tensor

from ...adapter.autograd.refusals import explain_missing_gradient
from ...adapter.autograd.scope import run_with_gradients
from ...adapter.batch_rows import Conds, rows_of
from ...adapter.memory import BatchParts
from ...adapter.model_call import Options, SamplerCall
from ...mitigation.prediction import dimension
from ...mitigation.scaled_gradient import scaled_gradient
from .caption_predictions import CaptionPredictions
from .linear_guidance import GuidanceRecorder, LinearGuidance
from .reference_scorer import NearestReferences, ReferenceScorer


class ModelGradient:
    """Computes ∇_x σ_t, and remembers for the run how much of a batch fits into memory with its graph."""

    def __init__(self, scorer: ReferenceScorer, captions: CaptionPredictions) -> None:
        self.scorer = scorer
        self.captions = captions
        self.parts, self.checkpoints = BatchParts(), "auto"

    def __call__(
        self, call: SamplerCall, nearest: NearestReferences, wanted: Tensor, linear: LinearGuidance | None
    ) -> Tensor:
        """∇_x σ_t (B, ...) at the cost of about two more evaluations; zero for samples not `wanted` (B,)."""
        guider, kept, batch = call.guider, call.guider.conds, len(call.x)

        def gradient_of(rows: slice, conds: Conds, options: Options) -> Tensor:
            x = call.x[rows].clone().requires_grad_(True)
            if not bool(wanted[rows].any()):
                return torch.zeros_like(x)
            guider.conds = conds if len(x) == batch else rows_of(conds, torch.arange(batch)[rows], batch)
            guidance = linear.for_autograd(rows) if linear is not None else None

            def similarity(x: Tensor) -> Tensor:
                part = SamplerCall(call.uncached.executor, x, call.sigma[rows].clone(), options, call.seed)
                return self.scorer.similarity(self._steered(part, guidance), nearest.rows[rows])

            similar = similarity(x)
            found = scaled_gradient(similar[wanted[rows].clone()].sum(), x, dimension(x))
            self.scorer.check_once(similarity, x, found, similar, through_model=True)
            return found

        def gradient(conds: Conds, options: Options) -> Tensor:
            try:
                return torch.cat(
                    self.parts.run(lambda rows: gradient_of(rows, conds, options), batch, call.smallest_part)
                )
            finally:
                guider.conds = kept

        def use_full_checkpoints() -> None:
            self.parts, self.checkpoints = BatchParts(), "full"

        with explain_missing_gradient(self.scorer.plan.node, "Set `gradient` to through prediction"):
            return run_with_gradients(
                gradient,
                guider,
                call.x,
                call.options,
                more_patchers=self.scorer.patchers,
                checkpoints=self.checkpoints,
                on_full_checkpoints=use_full_checkpoints,
            )

    def _steered(self, call: SamplerCall, linear: LinearGuidance | None) -> Tensor:
        """The prediction after the linear guidances, as the evaluation without gradients made it."""
        if linear is None:
            return call.predict()
        recorder = GuidanceRecorder()
        denoised = call.predict(recorder.hooked(call.options))
        if recorder.pair is None:
            return denoised
        caption = self.captions.predict(call, linear.captions) if linear.needs_captions else None
        return linear.apply(denoised, recorder.pair, caption)

"""How close a prediction is to the references: a set's metric on the host's latents and VAE."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...adapter.autograd.inference_weights import autograd_through
from ...adapter.autograd.refusals import explain_missing_gradient
from ...adapter.errors import GuardError
from ...adapter.long_work import check_interrupted
from ...adapter.memory import BatchParts, retry_with_less
from ...adapter.vae_decode import decode
from ...mitigation.amg.guidance import closeness
from ...mitigation.gradient_check import check_gradient
from ...mitigation.prediction import dimension
from ...mitigation.references.features import descriptor_features, image_features, latent_features, remove_mean
from ...mitigation.references.index import ReferenceIndex
from ...mitigation.references.similarity import nl2_ratio, similarity
from ...mitigation.scaled_gradient import scaled_gradient
from .plan import AMGPlan

if TYPE_CHECKING:
    from comfy.latent_formats import LatentFormat
    from comfy.model_patcher import ModelPatcher

ON_DEVICE = 2**28  # bytes of references that are moved to the device of the run; larger sets stay on the CPU


@dataclass(frozen=True)
class NearestReferences:
    """What one comparison of a batch found."""

    closeness: Tensor  # (B,) 0.5 and above: memorized
    rows: Tensor  # (B, k) of the set, the nearest first
    neighbours_closeness: Tensor  # (B, k)


class ReferenceScorer:
    """One run's comparisons with a reference set. `votes`: how many neighbours each returns."""

    def __init__(self, plan: AMGPlan, patcher: ModelPatcher, votes: int = 1) -> None:
        self.plan, self.references = plan, plan.references
        self.device = patcher.load_device
        self.latent_format = _for_autograd(patcher.get_model_object("latent_format"))
        self.votes = min(max(votes, self.references.neighbours), len(self.references))
        self.comparisons = BatchParts()
        # One image at a time keeps the graph of one decoded image in memory, not of a batch.
        self.gradients = BatchParts(None if self.references.metric == "latent" else 1)
        self._index: ReferenceIndex | None = None
        self._checked = False

    @property
    def index(self) -> ReferenceIndex:
        """Made at the first comparison: a run in which no prompt pulls needs none."""
        if self._index is None:
            features, metric = self.plan.compared[0], self.references.metric
            small = features.numel() * features.element_size() <= ON_DEVICE
            self._index = retry_with_less(
                lambda: ReferenceIndex(features, metric, self.device if small else None),
                lambda: ReferenceIndex(features, metric),
            )
        return self._index

    @property
    def patchers(self) -> list[ModelPatcher]:
        """The networks between a prediction and its features."""
        if self.references.metric == "latent":
            return []
        assert self.plan.vae is not None
        descriptor = getattr(self.references.descriptor, "patcher", None)
        return [self.plan.vae.patcher, *([descriptor] if descriptor is not None else [])]

    def features(self, denoised: Tensor) -> Tensor:
        """(B, C, H, W) in the model's own scale -> (B, D)."""
        latents = self.latent_format.process_out(denoised)
        if self.references.metric == "latent":
            mean = self.plan.compared[1]
            assert mean is not None
            return remove_mean(mean.to(denoised.device), latent_features(latents))
        images = decode(self.plan.vae, latents)
        if self.references.metric == "nL2":
            return image_features(images)
        descriptor = self.references.descriptor
        assert descriptor is not None
        if self.plan.guidance.as_released:
            descriptor = getattr(descriptor, "for_predictions", descriptor)
        return descriptor_features(images, descriptor).to(denoised.device)

    def nearest(self, denoised: Tensor) -> NearestReferences:
        """The nearest references of every sample, without gradients."""
        with torch.no_grad():
            parts = self.comparisons.run(lambda rows: self.features(denoised[rows]), len(denoised))
            features = self._checked_features(parts[0] if len(parts) == 1 else torch.cat(parts), denoised)
            values, rows = self._search(features)
            if self.references.metric == "nL2":
                ratio = nl2_ratio(values, values[:, : self.references.neighbours], self.references.alpha)
                values = closeness("nL2", ratio)  # [AMG] Eq. 8
            return NearestReferences(values[:, 0], rows, values)

    def _checked_features(self, features: Tensor, denoised: Tensor) -> Tensor:
        """Reject features of another length than the references', as a file that somebody else made can ask for.

        Reject NaN features: they compare below every threshold and would silently disable steering.

        If the prediction already holds NaN, the model made it, so no error blames the VAE or the descriptor.
        """
        width = self.references.features.shape[1]
        if features.shape[1] != width:
            raise GuardError(
                f"{self.plan.node}: `references` holds {width} numbers for each reference, but a prediction gives "
                f"{features.shape[1]}. Make the references again."
            )
        if torch.isfinite(features).all() or not torch.isfinite(denoised).all():
            return features
        raise GuardError(
            f"{self.plan.node}: `vae` or the descriptor of `references` made NaN from a prediction. Start ComfyUI with "
            "--fp32-vae and --fp32-text-enc, connect a TAESD as `vae`, or use a reference set with metric latent."
        )

    def _search(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The index's answer. If it runs out of memory it moves to the CPU for the rest of the run."""

        def on_cpu() -> tuple[Tensor, Tensor]:
            self._index = ReferenceIndex(self.index.features.cpu(), self.references.metric)
            return self._index.nearest(features, self.votes)

        return retry_with_less(lambda: self.index.nearest(features, self.votes), on_cpu)

    def similarity(self, denoised: Tensor, rows: Tensor) -> Tensor:
        """σ_t (B,) of the set's metric to these neighbours (B, k), differentiable."""
        near = self.index.take(rows[:, : self.references.neighbours])
        return similarity(self.references.metric, self.features(denoised), near, self.references.alpha)

    def gradient(self, denoised: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
        """∇_D σ_t (B, ...) with ε̂ as a constant. Zero for samples that are not `wanted` (B,)."""
        asked = wanted.nonzero().flatten()

        def uphill(part: slice) -> Tensor:
            check_interrupted()
            here = denoised[asked[part]].clone().requires_grad_(True)
            near = rows[asked[part]]
            similar = self.similarity(here, near)
            found = scaled_gradient(similar.sum(), here, dimension(denoised))
            self.check_once(lambda x: self.similarity(x, near), here, found, similar)
            return found.to(denoised.dtype)

        out = torch.zeros_like(denoised)
        instead = "Use a reference set with metric latent"
        with explain_missing_gradient(self.plan.node, instead, "`vae`"), autograd_through(self.patchers):
            found = self.gradients.run(uphill, len(asked))
            return out.index_copy(0, asked, torch.cat(found)) if found else out

    def check_once(
        self,
        value: Callable[[Tensor], Tensor],
        x: Tensor,
        gradient: Tensor,
        before: Tensor,
        through_model: bool = False,
    ) -> None:
        """Before a run's first step: does σ_t change along its gradient as it should? See `check_gradient`.

        Between features of latents and their cosine there is no network whose weights could be elsewhere.
        """
        if not self._checked and (through_model or self.patchers):
            check_gradient(value, x, gradient, before)
            self._checked = True


def _for_autograd(latent_format: LatentFormat) -> LatentFormat:
    """A copy of a latent format without inference tensors, which autograd refuses to save."""
    made = copy.copy(latent_format)
    with torch.inference_mode(False):
        for name, value in vars(made).items():
            if isinstance(value, Tensor) and value.is_inference():
                setattr(made, name, value.clone())
    return made

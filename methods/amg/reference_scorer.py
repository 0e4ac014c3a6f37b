"""How close is a prediction to the references? The metrics of a set, on the host's latents and VAE."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import comfy.model_management
import torch
from torch import Tensor, nn

from ...adapter.autograd.inference_weights import differentiable
from ...adapter.errors import GuardError
from ...adapter.memory import BatchParts, retry_with_less
from ...adapter.vae_decode import decode
from ...mitigation.amg.guidance import closeness
from ...mitigation.prediction import dimension
from ...mitigation.references.centring import centre_all, remove_mean, shared_mean
from ...mitigation.references.index import ReferenceIndex
from ...mitigation.references.reference_set import ReferenceSet
from ...mitigation.references.similarity import descriptor_features, image_features, latent_features, similarity
from ...mitigation.scaled_gradient import scaled_gradient

ON_DEVICE = 2**28  # bytes of references that go to the device of the run; more stay where they are


@dataclass(frozen=True)
class NearestReferences:
    """What one look at a batch of predictions found."""

    closeness: Tensor  # (B,) 0.5 and more: memorized
    rows: Tensor  # (B, k) of the set, the nearest first
    neighbours_closeness: Tensor  # (B, k)


class ReferenceScorer:
    """One run's view of a reference set. `votes`: how many neighbours a look returns."""

    def __init__(self, references: ReferenceSet, vae, latent_format, device: torch.device, node: str, votes: int = 1):
        small = references.features.numel() * references.features.element_size() <= ON_DEVICE
        features = references.features
        self.common: Tensor | None = None
        if references.metric == "latent":
            with torch.inference_mode(False), torch.no_grad():
                self.common = shared_mean(features)
                features = centre_all(features, self.common)
        self.store = retry_with_less(
            lambda: ReferenceIndex(features, references.metric, device if small else None),
            lambda: ReferenceIndex(features, references.metric),
        )
        self.looks = BatchParts()
        # Decoding samples one by one keeps the graph of one picture in memory, not of a batch.
        self.slopes = BatchParts(None if references.metric == "latent" else 1)
        self.references = references
        self.vae = vae
        self.latent_format = _normal(latent_format)
        self.node = node
        self.votes = min(max(votes, references.neighbours), len(references))

    @property
    def modules(self) -> list[nn.Module]:
        """The networks between a prediction and its features."""
        if self.references.metric == "latent":
            return []
        network = getattr(getattr(self.references.descriptor, "patcher", None), "model", None)
        return [self.vae.first_stage_model, *([network] if isinstance(network, nn.Module) else [])]

    def features(self, denoised: Tensor) -> Tensor:
        """(B, C, H, W) in the model's own scale -> (B, D)."""
        latents = self.latent_format.process_out(denoised)
        if self.common is not None:  # metric latent
            return remove_mean(self.common.to(denoised.device), latent_features(latents))
        pictures = decode(self.vae, latents)
        if self.references.metric == "nL2":
            return image_features(pictures)
        assert self.references.descriptor is not None  # amg_plan sees to it
        return descriptor_features(pictures, self.references.descriptor).to(denoised.device)

    def look(self, denoised: Tensor) -> NearestReferences:
        """The nearest references of every sample, without gradients."""
        with torch.no_grad():
            seen = self.looks.run(lambda rows: self.features(denoised[rows]), len(denoised))
            values, rows = self._nearest(self._finite(seen[0] if len(seen) == 1 else torch.cat(seen), denoised))
            if self.references.metric != "nL2":
                return NearestReferences(values[:, 0], rows, values)
            mean = self.references.alpha * values[:, : self.references.neighbours].mean(dim=1, keepdim=True)
            close = closeness("nL2", -values / mean.clamp_min(1e-8))  # [AMG] Eq. 8
            return NearestReferences(close[:, 0], rows, close)

    def _finite(self, seen: Tensor, denoised: Tensor) -> Tensor:
        """The features. NaN is close to nothing: nobody would be steered. The model's own NaN is its own affair."""
        if torch.isfinite(seen).all() or not torch.isfinite(denoised).all():
            return seen
        raise GuardError(
            f"{self.node}: `vae` or the descriptor of `references` made NaN of a prediction. Start ComfyUI with "
            "--fp32-vae and --fp32-text-enc, connect a TAESD as `vae`, or use a reference set with metric latent."
        )

    def _nearest(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The store's answer; one that runs out of memory goes to the CPU for the rest of the run."""

        def elsewhere() -> tuple[Tensor, Tensor]:
            self.store = ReferenceIndex(self.store.features.cpu(), self.references.metric)
            return self.store.nearest(seen, self.votes)

        return retry_with_less(lambda: self.store.nearest(seen, self.votes), elsewhere)

    def similarity(self, denoised: Tensor, rows: Tensor) -> Tensor:
        """σ_t (B,) of the set's metric to these neighbours (B, k), differentiable."""
        near = self.store.take(rows[:, : self.references.neighbours])
        return similarity(self.references.metric, self.features(denoised), near, self.references.alpha)

    def gradient(self, denoised: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
        """∇_D σ_t (B, ...): ε̂ counts as constant. Zero for samples that are not `wanted` (B,)."""
        asked = wanted.nonzero().flatten()

        def uphill(part: slice) -> Tensor:
            comfy.model_management.throw_exception_if_processing_interrupted()
            here = denoised[asked[part]].clone().requires_grad_(True)
            found = scaled_gradient(self.similarity(here, rows[asked[part]]).sum(), here, dimension(denoised))
            return found.to(denoised.dtype)

        out = torch.zeros_like(denoised)
        with differentiable(self.modules):
            found = self.slopes.run(uphill, len(asked))
            return out.index_copy(0, asked, torch.cat(found)) if found else out


def _normal(latent_format):
    """A latent format whose tensors autograd may keep: they too are made under inference mode."""
    made = copy.copy(latent_format)
    with torch.inference_mode(False):
        for name, value in vars(made).items():
            if isinstance(value, Tensor) and value.is_inference():
                setattr(made, name, value.clone())
    return made

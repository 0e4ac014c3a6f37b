"""How images become the features of a metric, both for making a set and for comparing with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from ..adapter.copy_detector import LoadedDescriptor, as_descriptor
from ..adapter.errors import GuardError, check_features, dims
from ..adapter.long_work import interruptible, progress
from ..adapter.memory import explain_out_of_memory
from ..adapter.vae_encode import encode
from ..mitigation.references.features import descriptor_features, image_features, latent_features
from ..mitigation.references.placement import moved
from ..mitigation.references.reference_set import NL2_SIZE, Metric, ReferenceSet
from ..mitigation.references.weights_fingerprint import same_weights, weights_fingerprint
from .image_resize import Size, cover, latent_in_pixels

if TYPE_CHECKING:
    from comfy.clip_vision import ClipVisionModel
    from comfy.sd import VAE

    DescriptorInput: TypeAlias = LoadedDescriptor | ClipVisionModel | None

# Weights that only decode. Fine-tuned VAEs such as sd-vae-ft-mse differ in nothing else, so their latents are the same.
DECODING = ("decoder.", "post_quant_conv.", "taesd_decoder.")


@dataclass(frozen=True)
class FeatureExtractor:
    """`extract`: an image (H, W, 3) -> one feature in its own shape; `rows` flattens a stack of them.

    `size`: what images are cropped to.
    """

    metric: Metric
    extract: Callable[[Tensor], Tensor]
    descriptor: LoadedDescriptor | None = None
    model_hash: str = ""
    size: Size | None = None

    def rows(self, extracted: Tensor) -> Tensor:
        """Stacked results of `extract` (B, ...) as features (B, D) float32."""
        if self.metric == "latent":
            return latent_features(extracted)
        return extracted.float().flatten(1)


def feature_extractor(
    metric: Metric, node: str, *, vae: VAE | None, descriptor: DescriptorInput, size: Size | None
) -> FeatureExtractor:
    """The extractor of a metric. `size`: images are cropped to it, for latent and nL2.

    Raises GuardError if the VAE or the descriptor that the metric needs is missing.
    """
    if metric == "latent":
        return _latent_extractor(node, vae, size)
    if metric == "nL2":
        return _pixel_extractor(node, size)
    return _descriptor_extractor(node, descriptor)


def _latent_extractor(node: str, vae: VAE | None, size: Size | None) -> FeatureExtractor:
    if vae is None:
        raise GuardError(
            f"{node}: the latent metric needs `vae`. Connect the model's VAE, or set metric to another one."
        )

    def latent(image: Tensor) -> Tensor:
        lower = "Use smaller images, start ComfyUI with --cpu-vae, or set metric to nL2."
        return encode(vae, cover(image[None], size), node, lower)

    return FeatureExtractor("latent", latent, model_hash=_fingerprint(vae), size=size)


def _fingerprint(vae: VAE) -> str:
    return weights_fingerprint(vae.first_stage_model.state_dict(), unused=DECODING)


def _pixel_extractor(node: str, size: Size | None) -> FeatureExtractor:
    def shrink(image: Tensor) -> Tensor:
        cropped = cover(image[None], size)
        pixels = image_features(cropped.movedim(-1, 1)).view(3, NL2_SIZE, NL2_SIZE)
        return check_features(pixels.cpu(), cropped, node, "resizing", "--fp32-vae")

    return FeatureExtractor("nL2", shrink, size=size)


def _descriptor_extractor(node: str, descriptor: DescriptorInput) -> FeatureExtractor:
    network = as_descriptor(descriptor, node)

    def embed(image: Tensor) -> Tensor:
        network.load()  # each time: a sampler or a VAE that ran since may have pushed it out of the GPU's memory
        with explain_out_of_memory(node, "Use a smaller `descriptor` (SSCD), or set metric to nL2."):
            embedding = descriptor_features(image.movedim(-1, 0)[None], network)[0].cpu()
        return check_features(embedding, image, node, "`descriptor`", "--fp32-text-enc (it covers CLIP vision, too)")

    return FeatureExtractor("descriptor", embed, network)


class FeaturesToCompare:
    """An image (H, W, 3) -> the features (V, D) to compare with a set; `warning` says what may be wrong with them.

    An image is also compared mirrored, and for the metrics that compare place by place, moved by up to 6 %.
    Raises GuardError if they cannot be compared.
    """

    def __init__(self, references: ReferenceSet, vae: VAE | None, node: str) -> None:
        self.references, self.node = references, node
        size = latent_in_pixels(references.shape, vae, node) if references.metric == "latent" else None
        if references.metric == "descriptor" and references.descriptor is None:
            raise GuardError(
                f"{node}: `references` holds embeddings of {references.descriptor_name or 'a descriptor'}, which is "
                "not loaded. Connect it to `descriptor` on Load References."
            )
        self.extractor = feature_extractor(
            references.metric, node, vae=vae, descriptor=references.descriptor, size=size
        )
        self.warning = _vae_warning(references.model_hash, self.extractor.model_hash)

    def __call__(self, image: Tensor) -> Tensor:
        both = [self.extractor.extract(image), self.extractor.extract(image.flip(1))]
        if tuple(both[0].shape) != self.references.shape:
            raise GuardError(
                f"{self.node}: `references` holds features of {dims(self.references.shape)}, but these images give "
                f"{dims(both[0].shape)}. Connect the VAE that the references were made with, or make them again."
            )
        by_place = self.references.metric != "descriptor"
        return self.extractor.rows(torch.cat([moved(one) for one in both]) if by_place else torch.stack(both))

    def of_all(self, images: Sequence[Tensor]) -> Iterator[Tensor]:
        """The same of one image after the other, with a progress bar: together they can fill the memory."""
        bar = progress(len(images))
        for image in interruptible(images):
            yield self(image)
            bar.update(1)


def vae_warning(references: ReferenceSet, vae: VAE | None) -> str:
    """A warning if these are latents of another VAE, or ""."""
    if references.metric != "latent" or vae is None:
        return ""
    return _vae_warning(references.model_hash, _fingerprint(vae))


def _vae_warning(made_with: str, connected: str) -> str:
    """The same; "" also if nobody knows which VAE made the latents."""
    same = same_weights(made_with, connected) if made_with and connected else True
    if same is None:
        return (
            "An older version of this pack saved the references, so it is unknown whether the connected VAE made them. "
            "If it did not, similarities may be too low: make the references again."
        )
    if not same:
        return (
            "The references were made with a different VAE than the connected one, so copies may be missed: make them "
            "again with this one."
        )
    return ""

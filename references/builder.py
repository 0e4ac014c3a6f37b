"""From pictures or latents to a reference set, and from pictures to what is compared with one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..adapter.copy_detector import ready_descriptor, weights_fingerprint
from ..adapter.errors import GuardError, check_latent, check_made
from ..adapter.memory import explain_out_of_memory
from ..adapter.sampling import progress
from ..mitigation.references.duplicates import signature
from ..mitigation.references.reference_set import NL2_SIZE, Metric, ReferenceSet
from ..mitigation.references.similarity import descriptor_features, image_features, latent_features
from .image_file import contain, cover

THUMBNAIL_BYTES = 400_000_000  # for all thumbnails of a set together
THUMBNAIL_SIDES = (256, 128, 64)


def thumbnail_side(count: int) -> int:
    """How large the kept pictures of so many references may be; 0 keeps none."""
    return next((side for side in THUMBNAIL_SIDES if count * side * side * 3 <= THUMBNAIL_BYTES), 0)


@dataclass(frozen=True)
class FeatureExtractor:
    """How pictures become features: `make(picture (H, W, 3))` is one unflattened feature, before scaling."""

    metric: Metric
    make: Callable[[Tensor], Tensor]
    descriptor: object = None
    model_hash: str = ""

    def features(self, made: Tensor) -> Tensor:
        """What `make` gave, stacked (B, ...), as features (B, D) float32."""
        if self.metric == "latent":
            return latent_features(made)
        return made.float().flatten(1)


def feature_extractor(
    metric: str, node: str, *, vae=None, descriptor=None, size: tuple[int, int] | None = None
) -> FeatureExtractor:
    """The comparison of a metric. `size`: (width, height) that pictures are cut to, for latent and nL2.

    Raises GuardError if the metric lacks its VAE or descriptor.
    """
    if metric == "latent":
        if vae is None:
            raise GuardError(
                f"{node}: the latent metric compares latents and needs `vae`: connect the VAE of the model, or make "
                "the references with another metric."
            )

        def encode(picture: Tensor) -> Tensor:
            picture = cover(picture[None], *size) if size else picture[None]
            with explain_out_of_memory(
                node, "Use smaller pictures, start ComfyUI with --cpu-vae, or set metric to nL2."
            ):
                made = vae.encode(picture)  # one by one: a video VAE takes a batch for one film
            if not isinstance(made, Tensor) or made.ndim < 4 or made.numel() == 0:
                raise GuardError(f"{node}: `vae` made no latent of a picture. Connect the VAE of the model.")
            latent = made[0].float().cpu()
            return check_made(latent, picture, node, "`vae`", "--fp32-vae or --bf16-vae")

        return FeatureExtractor("latent", encode, model_hash=weights_fingerprint(vae.first_stage_model.state_dict()))
    if metric == "nL2":

        def shrink(picture: Tensor) -> Tensor:
            picture = cover(picture[None], *size) if size else picture[None]
            made = image_features(picture.movedim(-1, 1)).view(3, NL2_SIZE, NL2_SIZE)
            return check_made(made, picture, node, "it", "--fp32-vae")

        return FeatureExtractor("nL2", shrink)
    network = ready_descriptor(descriptor, node)
    network.load()

    def embed(picture: Tensor) -> Tensor:
        with explain_out_of_memory(node, "Use a smaller `descriptor` (SSCD), or set metric to nL2."):
            made = descriptor_features(picture.movedim(-1, 0)[None], network)[0].cpu()
        return check_made(made, picture, node, "`descriptor`", "--fp32-text-enc, which is for CLIP vision, too")

    return FeatureExtractor("descriptor", embed, network)


@dataclass
class ReferenceSetBuilder:
    """Takes references one at a time and makes the set of them; `signatures` are for finding duplicates."""

    comparison: FeatureExtractor
    node: str
    expected: int
    rows: list[Tensor] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    captions: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    thumbnails: list[Tensor] = field(default_factory=list)
    signatures: list[Tensor] = field(default_factory=list)

    def add(self, picture: Tensor, name: str, caption: str) -> None:
        """One picture (H, W, 3) in [0, 1]."""
        self.add_made(self.comparison.make(picture), name, caption, picture)

    def add_made(self, made: Tensor, name: str, caption: str, picture: Tensor | None = None) -> None:
        """One unflattened feature, with the picture to remember it by."""
        self.shape = tuple(made.shape)
        self.rows.append(self.comparison.features(made[None])[0].to("cpu", torch.float16))
        self.names.append(name)
        self.captions.append(caption)
        if picture is not None:
            self.signatures.append(signature(picture.movedim(-1, 0)[None])[0].cpu())
            if side := thumbnail_side(self.expected):
                self.thumbnails.append(contain(picture, side))

    def finish(self) -> ReferenceSet:
        """The set. Raises GuardError if there are too few references for the metric."""
        network = self.comparison.descriptor
        try:
            return ReferenceSet(
                metric=self.comparison.metric,
                features=torch.stack(self.rows),
                shape=self.shape,
                captions=tuple(self.captions),
                names=tuple(self.names),
                thumbnails=torch.stack(self.thumbnails) if self.thumbnails else None,
                descriptor_name=getattr(network, "name", ""),
                descriptor_hash=getattr(network, "fingerprint", ""),
                model_hash=self.comparison.model_hash,
                descriptor=network,  # type: ignore[arg-type]
            )
        except ValueError as error:
            raise GuardError(f"{self.node}: {error}. Add pictures, or set metric to latent.") from None


def caption_lines(text: str, count: int, node: str, what: str) -> Sequence[str]:
    """`captions`, one a line, for `count` references: none, one for all, or one for each."""
    lines = [line.strip() for line in text.strip("\n").split("\n")] if text.strip() else []
    if len(lines) == 1:
        return lines * count
    if lines and len(lines) != count:
        raise GuardError(
            f"{node}: `captions` has {len(lines)} lines for {count} {what}. Write one line for each (a blank one where "
            "there is no caption), a single line for all, or nothing."
        )
    return lines or [""] * count


def comparable_features(references: ReferenceSet, images: Tensor, vae, node: str) -> tuple[Tensor, str]:
    """Pictures (B, H, W, 3) as features (B, D) to compare with the set, and a note if they fit badly.

    Raises GuardError if they cannot be compared.
    """
    size = None
    if references.metric == "latent" and vae is not None:
        ratio = _ratio(vae, node)
        size = (references.shape[-1] * ratio, references.shape[-2] * ratio)
    if references.metric == "descriptor" and references.descriptor is None:
        raise GuardError(
            f"{node}: `references` holds embeddings of {references.descriptor_name or 'a descriptor'}, which is not "
            "loaded. Connect it to `descriptor` on Load References."
        )
    by = feature_extractor(references.metric, node, vae=vae, descriptor=references.descriptor, size=size)
    made, bar = [], progress(len(images))
    for image in images:
        made.append(by.make(image))
        bar.update(1)
    if tuple(made[0].shape) != references.shape:
        raise GuardError(
            f"{node}: `references` holds {_by(references.shape)}, but here {_by(made[0].shape)} come out. Connect "
            "the VAE that the references were made with, or make them again."
        )
    note = ""
    if references.model_hash and by.model_hash and references.model_hash != by.model_hash:
        note = "The references were made with another VAE than the connected one: similarities may come out too low."
    return by.features(torch.stack(made)), note


def pixel_size(size_of: dict, vae, node: str) -> tuple[int, int]:
    """(width, height) of the pictures that a latent on the input `size_of` stands for."""
    samples = check_latent(size_of, node, "size_of")
    ratio = 8 if vae is None else _ratio(vae, node)
    return samples.shape[-1] * ratio, samples.shape[-2] * ratio


def _ratio(vae, node: str) -> int:
    """How many pixels a side of a latent's element stands for."""
    ratio = vae.spacial_compression_encode()
    if not isinstance(ratio, int) or ratio < 1:
        raise GuardError(f"{node}: `vae` does not tell its latents' size. Connect the VAE of the model.")
    return ratio


def _by(shape: Iterable[int]) -> str:
    return " × ".join(map(str, shape))

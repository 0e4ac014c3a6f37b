"""One error type, written for artists: what is wrong, which input, what to do."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def dims(shape: Iterable[int]) -> str:
    """`4 × 64 × 64`."""
    return " × ".join(map(str, shape))


class GuardError(ValueError):
    """A mistake that the artist can mend; the message names the node, the input and the way out."""


def check_finite(prediction: Tensor, node: str) -> Tensor:
    """The prediction itself, or a clear error if the model returned NaN or infinity."""
    if not torch.isfinite(prediction).all():
        raise GuardError(
            f"{node}: the model returned NaN or infinite values. Check `model` (a broken merge, or fp16 "
            "overflow: start ComfyUI with --force-upcast-attention or use bf16) and the patches on it."
        )
    return prediction


def check_magnitude(d: Tensor, node: str) -> Tensor:
    """The guidance magnitudes (B,) themselves, or a clear error if one is too large for a number."""
    if not torch.isfinite(d).all():
        raise GuardError(
            f"{node}: the guidance magnitude is infinite: prompt and negative prompt are predicted endlessly far "
            "apart. Check `model` (a broken merge or LoRA strength) and the patches on it."
        )
    return d


def check_features(features: Tensor, image: Tensor, node: str, maker: str, switch: str) -> Tensor:
    """The features of an image themselves, or a GuardError if they hold NaN.

    NaN compares below every threshold: a copy would pass as original. `switch`: the command-line switch of
    ComfyUI that helps when `maker` is at fault.
    """
    if torch.isfinite(features).all():
        return features
    if not torch.isfinite(image).all():
        raise GuardError(f"{node}: an image holds NaN. Check what made it (ComfyUI's --fp32-vae often helps).")
    raise GuardError(f"{node}: {maker} made NaN from an image. Start ComfyUI with {switch}.")


def check_latent(latent: dict, node: str, name: str = "latent_image") -> Tensor:
    """The samples of the input `name`, or a clear error if there is nothing in them."""
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if samples is None:
        raise GuardError(f"{node}: `{name}` holds no samples. Connect an Empty Latent Image or a VAE Encode.")
    if getattr(samples, "is_nested", False):
        raise GuardError(f"{node}: `{name}` holds several latents in one (audio and video). Use one of them.")
    if samples.numel() == 0:
        raise GuardError(
            f"{node}: `{name}` is empty (shape {dims(samples.shape)}). Set a batch size and a size above 0."
        )
    return samples


def check_images(images: Tensor, node: str) -> Tensor:
    """The IMAGE itself, or a clear error if it is empty or holds NaN, which is neither like a reference nor unlike."""
    if not len(images):
        raise GuardError(f"{node}: `images` is empty.")
    if images.isnan().any():
        raise GuardError(
            f"{node}: `images` holds NaN: a broken picture, which shows as black. Check the sampler and the VAE that "
            "made it; start ComfyUI with --fp32-vae or --force-upcast-attention."
        )
    return images

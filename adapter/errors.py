"""The pack's error type and the checks that several nodes share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class GuardError(ValueError):
    """An error that the user can fix. The message names the node, the input and what to do."""


GuardError.__module__ = "memorization_guard"  # the page shows it before the message; the real one is a path


def dims(shape: Iterable[int]) -> str:
    """`4 × 64 × 64`."""
    return " × ".join(map(str, shape))


def check_finite(prediction: Tensor, node: str) -> Tensor:
    """Return the prediction, or raise a GuardError if the model returned NaN or infinity."""
    if not torch.isfinite(prediction).all():
        raise GuardError(
            f"{node}: the model returned NaN or infinite values. Check `model` (a broken merge, or fp16 "
            "overflow: start ComfyUI with --force-upcast-attention or use bf16) and the patches on it."
        )
    return prediction


def check_magnitude(d: Tensor, node: str) -> Tensor:
    """Return the guidance magnitudes (B,), or raise a GuardError if one overflows."""
    if not torch.isfinite(d).all():
        raise GuardError(
            f"{node}: the guidance magnitude is infinite: the predictions with the prompt and with the negative "
            "prompt are too far apart. Check `model` (a broken merge or LoRA strength) and the patches on it."
        )
    return d


def check_features(features: Tensor, image: Tensor, node: str, maker: str, switch: str) -> Tensor:
    """Return the features of an image, or raise a GuardError if they hold NaN.

    NaN compares below every threshold, so a copy would pass as original. `switch`: the command-line switch of
    ComfyUI that helps when `maker` is at fault.
    """
    if torch.isfinite(features).all():
        return features
    if not torch.isfinite(image).all():
        raise GuardError(f"{node}: an image holds NaN. Check what made it (ComfyUI's --fp32-vae often helps).")
    raise GuardError(f"{node}: {maker} made NaN from an image. Start ComfyUI with {switch}.")


def check_latent(latent: dict, node: str, name: str = "latent_image") -> Tensor:
    """Return the samples of the input `name`, or raise a GuardError if there are none."""
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
    """Return the IMAGE, or raise a GuardError if it is empty or holds NaN, which would pass as original."""
    if not len(images):
        raise GuardError(f"{node}: `images` is empty. Connect at least one image.")
    if images.isnan().any():
        raise GuardError(
            f"{node}: `images` holds NaN, which shows as a black image. Check the sampler and the VAE that made it; "
            "start ComfyUI with --fp32-vae or --force-upcast-attention."
        )
    return images

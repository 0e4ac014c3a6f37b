"""One error type, written for artists: what is wrong, which input, what to do."""

from __future__ import annotations

import torch
from torch import Tensor


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


def check_made(made: Tensor, picture: Tensor, node: str, maker: str, switch: str) -> Tensor:
    """What was made of a picture, or a clear error: NaN is close to nothing, and a copy would pass as none.

    `switch`: of ComfyUI's command line, that helps when the `maker` is at fault.
    """
    if torch.isfinite(made).all():
        return made
    if not torch.isfinite(picture).all():
        raise GuardError(f"{node}: a picture holds NaN. Check what made it (ComfyUI's --fp32-vae often helps).")
    raise GuardError(f"{node}: {maker} made NaN of a picture. Start ComfyUI with {switch}.")


def check_latent(latent: dict, node: str, name: str = "latent_image") -> Tensor:
    """The samples of the input `name`, or a clear error if there is nothing in them."""
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if samples is None:
        raise GuardError(f"{node}: `{name}` holds no samples. Connect an Empty Latent Image or a VAE Encode.")
    if getattr(samples, "is_nested", False):
        raise GuardError(f"{node}: `{name}` holds several latents in one (audio and video). Use one of them.")
    if samples.numel() == 0:
        shape = " × ".join(map(str, samples.shape))
        raise GuardError(f"{node}: `{name}` is empty (shape {shape}). Set a batch size and a size above 0.")
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

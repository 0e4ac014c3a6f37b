"""Networks that tell copies, held by the host's memory management: SSCD, or a CLIP_VISION."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import safetensors.torch
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..mitigation.references import sscd
from .errors import GuardError
from .memory import retry_with_less

SOURCE = (
    "SSCD comes from https://github.com/facebookresearch/sscd-copy-detection (sscd_disc_mixup.torchscript.pt, "
    "100 MB; see its licence). Without it, a Load CLIP Vision can be connected wherever a descriptor is asked for."
)


@dataclass(frozen=True, eq=False)
class LoadedDescriptor:
    """A `mitigation.references.Descriptor` on the host's device.

    `load` puts the weights there; a call does not, so that it can stand inside a gradient, where
    nothing may be moved. A sampling run can have `patcher` loaded along with its model.
    """

    name: str
    fingerprint: str
    patcher: ModelPatcher
    embed: Callable[[Tensor], Tensor]  # (B, 3, side, side), normalised -> (B, D)
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def load(self) -> None:
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)

    def __call__(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D) on the pictures' device; differentiable."""
        device = self.patcher.load_device

        def prepared(where: torch.device) -> Tensor:
            return sscd.prepare(pictures.to(where).float(), self.side, self.mean, self.std).to(device)

        # A picture can be much larger than what the network sees of it.
        small = retry_with_less(lambda: prepared(device), lambda: prepared(torch.device("cpu")))
        return self.embed(small).to(pictures.device)


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Tells weights apart by a few numbers of each tensor, as float16: fp32 and fp16 loads agree."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        few = weights[name].detach().flatten()[:64].to("cpu", torch.float16)
        digest.update(f"{name} {tuple(weights[name].shape)}".encode() + few.numpy().tobytes())
    return digest.hexdigest()


def ready_descriptor(given, node: str) -> LoadedDescriptor:
    """A MG_DESCRIPTOR as it is, or a CLIP_VISION as a descriptor. Raises GuardError without one."""
    if given is None:
        raise GuardError(
            f"{node}: the descriptor metric needs a network that compares pictures: connect `descriptor` (Load Copy "
            "Detector (SSCD) or Load CLIP Vision), or set metric to latent."
        )
    return given if isinstance(given, LoadedDescriptor) else of_clip_vision(given)


def of_clip_vision(clip_vision) -> LoadedDescriptor:
    """The host's CLIP_VISION: its image embedding of the whole picture, squeezed to a square."""
    network = clip_vision.model

    def embed(pictures: Tensor) -> Tensor:
        with _norms_keep_copies(network):
            pooled = network(pixel_values=pictures, intermediate_output=-2)[2].float()
        return pooled.mean(dim=1) if pooled.ndim == 3 else pooled  # SigLIP hands out every token

    weights = network.state_dict()
    return LoadedDescriptor(
        f"CLIP vision ({sum(w.numel() for w in weights.values()) / 1e6:.0f} M weights)",
        weights_fingerprint(weights),
        clip_vision.patcher,
        embed,
        clip_vision.image_size,
        tuple(clip_vision.image_mean),
        tuple(clip_vision.image_std),
    )


@contextmanager
def _norms_keep_copies(network: nn.Module) -> Iterator[None]:
    """The host's CLIP adds in place to what a LayerNorm keeps for its backward: hand each one a copy."""
    hooks = []
    try:
        if torch.is_grad_enabled():
            for part in network.modules():
                if isinstance(part, nn.LayerNorm):
                    hooks.append(part.register_forward_pre_hook(lambda _, given: (given[0].clone(), *given[1:])))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def of_sscd_file(path: Path, node: str) -> LoadedDescriptor:
    """SSCD's weights, from safetensors or out of the official TorchScript archive, whose code is not run."""
    try:
        network = sscd.sscd_from(_weights(path))
    except (OSError, RuntimeError, ValueError, AttributeError, safetensors.SafetensorError) as error:
        kind = "a safetensors file" if path.suffix == ".safetensors" else "a TorchScript archive"
        raise GuardError(
            f"{node}: `file` {path.name} is not {kind} with the weights of a ResNet-50 SSCD ({_short(error)}). {SOURCE}"
        ) from None
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return LoadedDescriptor(
        f"SSCD ({path.name})",
        weights_fingerprint(network.state_dict()),
        ModelPatcher(network, load_device=device, offload_device=offload),
        network,
        sscd.SIDE,
        sscd.MEAN,
        sscd.STD,
    )


def _weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    return torch.jit.load(str(path), map_location="cpu").state_dict()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]

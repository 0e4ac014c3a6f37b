"""Networks that recognise copies, held by the host's memory management: SSCD, or a CLIP_VISION."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import comfy.model_management
import safetensors.torch
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..mitigation.references import sscd
from ..mitigation.references.torch_archive import read_weights
from ..mitigation.references.weights_fingerprint import weights_fingerprint
from .errors import GuardError
from .memory import retry_with_less

SOURCE = (
    "SSCD comes from https://github.com/facebookresearch/sscd-copy-detection (sscd_disc_mixup.torchscript.pt, "
    "100 MB; see its licence). Without it, connect Load CLIP Vision wherever a descriptor is asked for."
)


@dataclass(frozen=True, eq=False)
class LoadedDescriptor:
    """A `mitigation.references.Descriptor` on the host's device.

    A call does not load the weights, because nothing may be moved inside a gradient: call `load` before, or have
    `patcher` loaded along with the model of a sampling run.
    """

    name: str
    fingerprint: str
    patcher: ModelPatcher
    embed: Callable[[Tensor], Tensor]  # (B, 3, side, side), normalised -> (B, D)
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    antialias: bool = True
    amg_as_released: bool = False
    places: Callable[[Tensor], Tensor] | None = None  # (B, 3, side, side) -> (B, D, h, w), whose sum is the embedding
    least_threshold: float = 0.0  # below it, most images would count as copies

    @property
    def for_predictions(self) -> LoadedDescriptor:
        """What AMG Guidance compares a prediction by. AMG's released code gives a prediction in [−1, 1], resized
        without antialiasing, to the network that sees its references in [0, 1].
        """
        half = (0.5, 0.5, 0.5)
        return replace(self, mean=half, std=half, antialias=False) if self.amg_as_released else self

    def threshold_note(self, threshold: float) -> list[str]:
        """A sentence in a list if the threshold is one for another network, or an empty list."""
        if threshold >= self.least_threshold:
            return []
        return [
            f"{self.name} finds most images similar. Start with a threshold of {self.least_threshold:g}, and raise it "
            "until ordinary images have no alarm. Or connect them as `background`."
        ]

    def load(self) -> None:
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D) on the images' device; differentiable."""
        return self.embed(self._prepared(images)).to(images.device)

    def by_place(self, images: Tensor) -> Tensor:
        """The same as a sum over places, (B, D, h, w). Raises ValueError if this network's embedding is none."""
        if self.places is None:
            raise ValueError(f"the embedding of {self.name} is no sum over places")
        return self.places(self._prepared(images)).to(images.device)

    def _prepared(self, images: Tensor) -> Tensor:
        """On the network's device."""
        device = self.patcher.load_device

        def prepare_on(where: torch.device) -> Tensor:
            return sscd.prepare(images.to(where).float(), self.side, self.mean, self.std, self.antialias).to(device)

        # An image can be much larger than what the network sees of it.
        return retry_with_less(lambda: prepare_on(device), lambda: prepare_on(torch.device("cpu")))


def as_descriptor(given: LoadedDescriptor | ClipVisionModel | None, node: str) -> LoadedDescriptor:
    """The descriptor of the socket that takes MG_DESCRIPTOR or CLIP_VISION. Raises GuardError without one."""
    if given is None:
        raise GuardError(
            f"{node}: the descriptor metric needs a network that compares images: connect `descriptor` (Load Copy "
            "Detector (SSCD) or Load CLIP Vision), or set metric to latent."
        )
    if isinstance(given, LoadedDescriptor):
        return given
    if given.image_size < 1:
        raise GuardError(
            f"{node}: `descriptor` is a network without an image size of its own (SigLIP 2 NaFlex), which this pack "
            "does not support. Load another file with Load CLIP Vision, or connect Load Copy Detector (SSCD)."
        )
    return clip_vision_descriptor(given)


def clip_vision_descriptor(clip_vision: ClipVisionModel) -> LoadedDescriptor:
    """The host's CLIP_VISION: its embedding of the whole image, squeezed to a square.

    The host's network returns it third: for CLIP the projected first token, for DINOv2 and DINOv3 the first token. For
    SigLIP, whose own pooling the host does not have, it is every token, of which we take the mean.
    """
    network = clip_vision.model
    kind, threshold = _kind_of(network)

    def embed(images: Tensor) -> Tensor:
        with _cloned_layer_norm_inputs(network):
            pooled = network(pixel_values=images, intermediate_output=-2)[2].float()
        return pooled.mean(dim=1) if pooled.ndim == 3 else pooled

    weights = network.state_dict()
    return LoadedDescriptor(
        f"{kind} ({sum(w.numel() for w in weights.values()) / 1e6:.0f} M weights)",
        weights_fingerprint(weights),
        clip_vision.patcher,
        embed,
        clip_vision.image_size,
        tuple(clip_vision.image_mean),
        tuple(clip_vision.image_std),
        least_threshold=threshold,
    )


def _kind_of(network: nn.Module) -> tuple[str, float]:
    """What a network of the host is called, and with which threshold to start. We measured none of them."""
    name = type(network).__name__.replace("Dino", "DINO")
    if name.startswith("DINO"):  # DINOv3 is not in every version of the host
        return name[:6], 0.8
    siglip = getattr(getattr(network, "vision_model", None), "output_layernorm", False)
    return ("SigLIP" if siglip else "CLIP vision"), 0.9


@contextmanager
def _cloned_layer_norm_inputs(network: nn.Module) -> Iterator[None]:
    """The host's CLIP adds in place to what a LayerNorm keeps for its backward pass: give each one a clone."""
    with ExitStack() as hooks:
        for layer in network.modules() if torch.is_grad_enabled() else ():
            if isinstance(layer, nn.LayerNorm):
                hook = layer.register_forward_pre_hook(lambda _, given: (given[0].clone(), *given[1:]))
                hooks.callback(hook.remove)
        yield


def load_sscd(path: Path, node: str, amg_as_released: bool = False) -> LoadedDescriptor:
    """SSCD's weights, from safetensors or from the official TorchScript archive, without running any code in it.

    `amg_as_released`: prepare images as AMG's released code does, 224×224 and not normalized.
    """
    try:
        plain = path.suffix == ".safetensors"
        network = sscd.sscd_from(safetensors.torch.load_file(path) if plain else read_weights(path))
    except (OSError, RuntimeError, ValueError, AttributeError, safetensors.SafetensorError) as error:
        kind = "a safetensors file" if plain else "a PyTorch archive"
        why = " ".join(str(error).split())[:120]
        raise GuardError(
            f"{node}: `file` {path.name} is not {kind} with the weights of SSCD ({why}). {SOURCE}"
        ) from None
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    made = LoadedDescriptor(
        f"SSCD ({path.name})",
        weights_fingerprint(network.state_dict()),
        ModelPatcher(network, load_device=device, offload_device=offload),
        network,
        sscd.SIDE,
        sscd.MEAN,
        sscd.STD,
        places=partial(sscd.embedding_by_place, network),
    )
    if not amg_as_released:
        return made
    side, none, one = sscd.RELEASED_SIDE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    # Embeddings of images that were prepared differently cannot be compared.
    marked = {**network.state_dict(), "preparation": torch.tensor([side, *none, *one])}
    return replace(
        made,
        name=f"{made.name}, AMG as released",
        fingerprint=weights_fingerprint(marked),
        side=side,
        mean=none,
        std=one,
        amg_as_released=True,
    )

"""SSCD, a network for copy detection. Pizzi et al., CVPR 2022, arXiv 2202.10261.

A ResNet-50 (torchvision's: the stride is in the 3×3 convolution) whose last feature map is pooled by a generalized
mean (GeM) and projected to an embedding. Two images are compared by the cosine of their embeddings. The user
supplies the weights; the official files name them in two ways.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

RELEASED_SIDE = 224  # of AMG's released code, which neither normalizes nor crops
SIDE = 320  # Meta's recipe for square tensors: resize the whole image, no crop
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GEM = 3.0


class GeM(nn.Module):
    """Generalized-mean pooling: (B, C, H, W) -> (B, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=1e-6).pow(GEM).mean(dim=(2, 3), keepdim=True).pow(1 / GEM)


def sscd_network(dims: int = 512, width: int = 64) -> ResNet:
    """Images (B, 3, H, W), normalized by MEAN and STD -> embeddings (B, dims), not of length 1. `width`: 64 in SSCD."""
    network = ResNet(Bottleneck, [3, 4, 6, 3], num_classes=dims, width_per_group=width)
    network.avgpool = GeM()
    return network


CLASSY = [  # names in Classy Vision's ResNet, with which the weights were trained -> torchvision's
    (r"^initial_block\._module\.0\.", "conv1."),
    (r"^initial_block\._module\.1\.", "bn1."),
    (r"\.convolutional_block\.0\.", ".conv1."),
    (r"\.convolutional_block\.1\.", ".bn1."),
    (r"\.convolutional_block\.3\.", ".conv2."),
    (r"\.convolutional_block\.4\.", ".bn2."),
    (r"\.convolutional_block\.6\.", ".conv3."),
    (r"^(blocks\..*)\.bn\.", r"\1.bn3."),
    (r"^embeddings\.1\.", "fc."),
]


def torchvision_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of either official naming (Classy Vision's or torchvision's) by torchvision's names."""
    out = {}
    for name, weight in weights.items():
        own = name.removeprefix("backbone.")
        for pattern, ours in CLASSY:
            own = re.sub(pattern, ours, own)
        block = re.match(r"^blocks\.(\d)\.(?:block\d-)?(\d+)\.(?:_module\.)?(.*)$", own)
        if block:
            own = f"layer{int(block[1]) + 1}.{block[2]}.{block[3]}"
        if not own.endswith("num_batches_tracked"):
            out[own] = weight
    return out


def sscd_from(weights: Mapping[str, Tensor]) -> ResNet:
    """The network with these weights, in float32. Raises ValueError or RuntimeError if they are not SSCD's."""
    own = torchvision_names(weights)
    first, last = own.get("layer1.0.conv1.weight"), own.get("fc.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 2:
        raise ValueError("no first block or no last projection among the weights")
    if len(last) > 4096 or len(first) > 256:
        raise ValueError(f"{len(last)} dimensions and {len(first)} channels are larger than any SSCD")
    with torch.device("meta"):  # what a file says of its sizes must not decide how much memory is taken
        network = sscd_network(dims=len(last), width=len(first))
    for name, weight in network.state_dict().items():
        if name in own and own[name].shape != weight.shape:
            raise ValueError(f"{name} has the shape {tuple(own[name].shape)}, not {tuple(weight.shape)}")
    network = sscd_network(dims=len(last), width=len(first))
    found = network.load_state_dict(own, strict=False)
    missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or found.unexpected_keys:
        raise ValueError(
            f"not a ResNet-50: {len(missing)} weights are missing, {len(found.unexpected_keys)} are unknown"
        )
    return network.eval().requires_grad_(False)


def prepare(
    images: Tensor, side: int, mean: tuple[float, ...], std: tuple[float, ...], antialias: bool = True
) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] -> resized to side × side and normalized; differentiable."""
    if images.shape[-2:] != (side, side):
        images = F.interpolate(images, (side, side), mode="bilinear", antialias=antialias, align_corners=False)
    centre, spread = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (mean, std))
    return (images - centre) / spread

"""SSCD, a network for copy detection. Pizzi et al., CVPR 2022, arXiv 2202.10261.

A ResNet-50, or for sscd_disc_large a ResNeXt-101 32×4d (torchvision's: the stride is in the 3×3 convolution), whose
last feature map is pooled by a generalized mean (GeM) and projected to an embedding. Two images are compared by the
cosine of their embeddings. The user supplies the weights; the official files name them in two ways.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

RELEASED_SIDE = 224  # of AMG's released code, which neither normalizes nor crops
SIDE = 320  # Meta's recipe for square tensors: resize the whole image, no crop
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GEM = 3.0
MOST_BLOCKS = 36  # of a stage, in any ResNet


class GeM(nn.Module):
    """Generalized-mean pooling: (B, C, H, W) -> (B, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=1e-6).pow(GEM).mean(dim=(2, 3), keepdim=True).pow(1 / GEM)


class Size(NamedTuple):
    """Of a network; the default is SSCD's ResNet-50, and `LARGE` is sscd_disc_large."""

    dims: int = 512
    width: int = 64  # channels of a group in the first stage
    groups: int = 1
    blocks: tuple[int, ...] = (3, 4, 6, 3)  # of each stage


LARGE = Size(1024, 4, 32, (3, 4, 23, 3))


def sscd_network(size: Size) -> ResNet:
    """Images (B, 3, H, W), normalized by MEAN and STD -> embeddings (B, dims), not of length 1."""
    network = ResNet(Bottleneck, list(size.blocks), size.dims, groups=size.groups, width_per_group=size.width)
    network.avgpool = GeM()
    return network


def embedding_by_place(network: ResNet, images: Tensor) -> Tensor:
    """What each place of the last feature map adds to the embedding: (B, 3, H, W) -> (B, dims, h, w), whose sum it is.

    GeM takes a root of the mean of the powers, so it is not linear in them. But a root r = m^(1/3) is m · m^(1/3 − 1):
    each place gets its share of the power. The bias, which has no place, is spread evenly.
    """
    x = images
    for part in list(network.children())[:-2]:  # all but the pooling and the projection
        x = part(x)
    powers, places = x.clamp(min=1e-6).pow(GEM), x.shape[2] * x.shape[3]
    pooled = powers * powers.mean(dim=(2, 3), keepdim=True).pow(1 / GEM - 1) / places
    return F.conv2d(pooled, network.fc.weight[:, :, None, None], network.fc.bias / places)


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
    size = _size(own)
    with torch.device("meta"):  # what a file says of its sizes must not decide how much memory is taken
        expected = sscd_network(size).state_dict()
    expected = {name: weight for name, weight in expected.items() if not name.endswith("num_batches_tracked")}
    for name, weight in expected.items():
        if name in own and own[name].shape != weight.shape:
            raise ValueError(f"{name} has the shape {tuple(own[name].shape)}, not {tuple(weight.shape)}")
    missing, unknown = expected.keys() - own.keys(), own.keys() - expected.keys()
    if missing or unknown:
        raise ValueError(f"not SSCD's network: {len(missing)} weights are missing, {len(unknown)} are unknown")
    network = sscd_network(size)
    network.load_state_dict(own, strict=False)
    return network.eval().requires_grad_(False)


def _size(own: Mapping[str, Tensor]) -> Size:
    """As the shapes and the numbers of the blocks say."""
    parts = [own.get(name) for name in ("layer1.0.conv1.weight", "layer1.0.conv2.weight", "fc.weight")]
    if any(part is None or part.ndim != rank for part, rank in zip(parts, (4, 4, 2), strict=True)):
        raise ValueError("no first block or no last projection among the weights")
    first, grouped, last = (tuple(part.shape) for part in parts if part is not None)
    if last[0] > 4096 or first[0] > 256:
        raise ValueError(f"{last[0]} dimensions and {first[0]} channels are larger than any SSCD")
    groups = first[0] // max(grouped[1], 1) or 1
    blocks = [len({n.split(".")[1] for n in own if n.startswith(f"layer{stage}.")}) for stage in range(1, 5)]
    if not all(0 < count <= MOST_BLOCKS for count in blocks):
        raise ValueError(f"stages of {', '.join(map(str, blocks))} blocks")
    return Size(last[0], first[0] // groups, groups, tuple(blocks))


def prepare(
    images: Tensor, side: int, mean: tuple[float, ...], std: tuple[float, ...], antialias: bool = True
) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] -> resized to side × side and normalized; differentiable."""
    if images.shape[-2:] != (side, side):
        images = F.interpolate(images, (side, side), mode="bilinear", antialias=antialias, align_corners=False)
    centre, spread = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (mean, std))
    return (images - centre) / spread

"""SSCD: the network that tells copies. Pizzi et al., CVPR 2022, arXiv 2202.10261.

A ResNet-50 (He et al., 1512.03385; stride in the 3×3 convolution) whose last map is pooled by a
generalised mean (GeM) and projected to an embedding. Two pictures are compared by the cosine of their
embeddings. The weights are the user's: the official files come in two namings, which `own_names` reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 320  # Meta's recipe for square tensors: squeeze the whole picture, no crop
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GEM = 3.0
LAYERS = (3, 4, 6, 3)


class Bottleneck(nn.Module):
    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module | None = None
        if stride != 1 or inside != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class SSCD(nn.Module):
    """Pictures (B, 3, H, W), normalised by MEAN and STD -> embeddings (B, dims), not of length 1."""

    def __init__(self, dims: int = 512, base: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, base, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        inside = base
        for i, count in enumerate(LAYERS):
            width = base * 2**i
            blocks = []
            for j in range(count):
                blocks.append(Bottleneck(inside, width, 2 if i > 0 and j == 0 else 1))
                inside = 4 * width
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inside, dims)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for i in range(len(LAYERS)):
            x = getattr(self, f"layer{i + 1}")(x)
        pooled = x.clamp(min=1e-6).pow(GEM).mean(dim=(2, 3)).pow(1 / GEM)
        return self.fc(pooled)


CLASSY = [  # the naming of Classy Vision's ResNet, in which the weights were trained -> ours
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


def own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of either official naming (Classy Vision's or torchvision's), or our own, by our names."""
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


def sscd_from(weights: Mapping[str, Tensor]) -> SSCD:
    """The network with these weights, in float32, for inference.

    Raises ValueError if they are not those of a ResNet-50 SSCD.
    """
    own = own_names(weights)
    first, last = own.get("conv1.weight"), own.get("fc.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 2:
        raise ValueError("no first convolution or no last projection among the weights")
    made = SSCD(dims=len(last), base=len(first))
    known = {name: held.shape for name, held in made.state_dict().items() if not name.endswith("num_batches_tracked")}
    missing, foreign = sorted(known.keys() - own.keys()), sorted(own.keys() - known.keys())
    if missing or foreign:
        raise ValueError(f"not a ResNet-50: {len(missing)} weights are missing, {len(foreign)} are unknown")
    for name, shape in known.items():
        if own[name].shape != shape:
            raise ValueError(f"{name} has the shape {tuple(own[name].shape)} instead of {tuple(shape)}")
    made.load_state_dict({name: weight.detach().float() for name, weight in own.items()}, strict=False)
    return made.eval().requires_grad_(False)


def prepare(pictures: Tensor, side: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] -> squeezed to side × side and normalised; differentiable."""
    if pictures.shape[-2:] != (side, side):
        pictures = F.interpolate(pictures, (side, side), mode="bilinear", antialias=True, align_corners=False)
    shape = (1, 3, 1, 1)
    return (pictures - torch.tensor(mean, device=pictures.device).view(shape)) / torch.tensor(
        std, device=pictures.device
    ).view(shape)

"""Does an image of the lab checkpoint show the kind of thing that its caption asks for: alignment, without CLIP."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .copies import reduced
from .scenes import NAMES, asked

FILE = Path(__file__).parent / "judge.safetensors"
BATCH = 64
SCALE = ".scale"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths, layers = (3, 48, 96, 128, 192, 256), []
        for a, b in pairwise(widths):
            for i, o in ((a, b), (b, b)):
                layers += [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.f, self.o = nn.Sequential(*layers), nn.Linear(widths[-1], len(NAMES))

    def features(self, x: Tensor) -> Tensor:
        """(n, 3, 128, 128) in [0, 1] -> (n, 256)."""
        return self.f(x - 0.5).amax((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.features(x))


def packed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convolutions as int8 with a scale for each output channel, the rest as float16: half the file's size."""
    made = {}
    for name, w in weights.items():
        if w.ndim == 4:
            made[name + SCALE] = scale = (w.abs().amax((1, 2, 3), keepdim=True) / 127).half()
            made[name] = (w / scale.float()).round().to(torch.int8)
        else:
            made[name] = w.half()
    return made


def unpacked(kept: dict[str, Tensor]) -> dict[str, Tensor]:
    scales = {k: v.float() for k, v in kept.items() if k.endswith(SCALE)}
    return {k: v.float() * scales.get(k + SCALE, 1.0) for k, v in kept.items() if k not in scales}


class Judge:
    """The trained network. Images are uint8 (n, H, W, 3), or (n, 3, H, W) in [0, 1]."""

    def __init__(self, net: Net) -> None:
        self.net = net.eval()

    @classmethod
    def load(cls, file: Path = FILE) -> "Judge":
        net = Net()
        counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
        net.load_state_dict(unpacked(load_file(file)) | counters)
        return cls(net)

    @torch.no_grad()
    def features(self, images: np.ndarray | Tensor) -> Tensor:
        return torch.cat([self.net.features(part) for part in reduced(images).split(BATCH)])

    @torch.no_grad()
    def aligned(self, images: np.ndarray | Tensor, captions: Sequence[str]) -> Tensor:
        return self.net.o(self.features(images)).argmax(1) == torch.tensor([asked(c) for c in captions])

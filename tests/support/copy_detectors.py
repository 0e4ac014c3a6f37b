"""Networks that compare images, without weights that anybody would have to fetch."""

import json
from pathlib import Path

import comfy.clip_vision
import torch
from torch import nn
from torchvision.models.resnet import ResNet

from support.families.kinds import SIZES, fill


def random_sscd(dims: int = 64) -> ResNet:
    """SSCD with blocks of an eighth of the width and random weights that keep the differences between images."""
    from memorization_guard.mitigation.references.sscd import Size, sscd_network

    torch.manual_seed(3)
    made = sscd_network(Size(dims, width=8))
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 2)
    return made.eval()


def random_clip_vision(folder: Path, seed: int = 0, **config) -> comfy.clip_vision.ClipVisionModel:
    """The host's own CLIP vision class, tiny, loaded under inference mode as the host does it."""
    file = folder / "clip.json"
    file.write_text(json.dumps({**SIZES["CLIP vision"], **config}))
    with torch.inference_mode():
        made = comfy.clip_vision.ClipVisionModel(str(file))
        fill(made.model.named_parameters(), seed)
    return made


class Planted(nn.Module):
    """TorchScript can write files: what `__setstate__` does here runs in `torch.jit.load`."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.target, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.target, self.training = state
        torch.save(torch.ones(1), self.target)

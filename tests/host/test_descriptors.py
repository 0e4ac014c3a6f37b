"""Copy detectors inside a gradient, under the host's inference mode."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from memorization_guard.adapter.autograd.inference_weights import autograd_through
from memorization_guard.adapter.copy_detector import LoadedDescriptor, clip_vision_descriptor, load_sscd
from support.copy_detectors import random_clip_vision, random_sscd
from support.finite_differences import check_gradient


def made(kind: str, folder: Path) -> LoadedDescriptor:
    with torch.inference_mode():  # as the host's executor loads it
        if kind == "SSCD":
            save_file({n: w.clone() for n, w in random_sscd().state_dict().items()}, str(folder / "a.safetensors"))
            return load_sscd(folder / "a.safetensors", "Test")
        if kind == "CLIP vision":
            return clip_vision_descriptor(random_clip_vision(folder))
        return clip_vision_descriptor(random_clip_vision(folder, model_type="siglip_vision_model", projection_dim=32))


@pytest.mark.parametrize("kind", ["SSCD", "CLIP vision", "SigLIP"])
def test_the_gradient_equals_finite_differences(kind: str, tmp_path: Path) -> None:
    network = made(kind, tmp_path)
    with torch.inference_mode():
        network.load()
        with autograd_through([network.patcher]):
            image = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(2))
            goal = torch.randn(network(image).shape, generator=torch.Generator().manual_seed(3))
            check_gradient(lambda x: (network(x) * goal).sum(), image, step=0.02, rtol=1e-2, least=1e-4)
    assert goal.ndim == 2
    assert not any(part._forward_pre_hooks for part in network.patcher.model.modules())


def test_clip_vision_embeds_what_the_host_does(tmp_path: Path) -> None:
    """At the network's own size, where no resizing comes between; the host rounds to 8 bits."""
    with torch.inference_mode():
        clip_vision = random_clip_vision(tmp_path)
        images = (torch.rand(2, 32, 32, 3) * 255).round() / 255
        theirs = clip_vision.encode_image(images)["image_embeds"]
        mine = clip_vision_descriptor(clip_vision)(images.movedim(-1, 1))
    torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)

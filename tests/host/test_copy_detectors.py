"""Copy detectors: what they make of an image, also inside a gradient, and which network is none."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from memorization_guard.adapter.autograd.inference_weights import autograd_through
from memorization_guard.adapter.copy_detector import LoadedDescriptor, clip_vision_descriptor, load_sscd
from memorization_guard.mitigation.references.weights_fingerprint import same_weights
from support import graphs
from support.copy_detectors import random_clip_vision, random_sscd
from support.executor import Host
from support.outcomes import fails

DINOV2 = {"model_type": "dinov2", "image_size": 518, "layer_norm_eps": 1e-6, "use_swiglu_ffn": False}


def made(kind: str, folder: Path) -> LoadedDescriptor:
    with torch.inference_mode():  # as the host's executor loads it
        if kind == "SSCD":
            save_file({n: w.clone() for n, w in random_sscd().state_dict().items()}, str(folder / "a.safetensors"))
            return load_sscd(folder / "a.safetensors", "Test")
        if kind == "CLIP vision":
            return clip_vision_descriptor(random_clip_vision(folder))
        own = {"SigLIP": {"model_type": "siglip_vision_model", "projection_dim": 32}, "DINOv2": DINOV2}[kind]
        return clip_vision_descriptor(random_clip_vision(folder, **own))


@pytest.mark.parametrize("kind", ["SSCD", "CLIP vision", "SigLIP", "DINOv2"])
def test_the_gradient_equals_finite_differences(kind: str, tmp_path: Path) -> None:
    network = made(kind, tmp_path)
    assert network.name.startswith(kind)
    with torch.inference_mode():
        network.load()
        with autograd_through([network.patcher]):
            image = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(2))
            goal = torch.randn(network(image).shape, generator=torch.Generator().manual_seed(3))
            x = image.clone().requires_grad_()
            (gradient,) = torch.autograd.grad((network(x) * goal).sum(), x)
            way = gradient / gradient.norm()
            with torch.no_grad():
                up, down = ((network(image + s * way) * goal).sum().double() for s in (0.02, -0.02))
    assert gradient.norm() > 1e-4
    torch.testing.assert_close((up - down) / 0.04, gradient.norm().double(), rtol=1e-2, atol=0)
    assert goal.ndim == 2
    assert not any(part._forward_pre_hooks for part in network.patcher.model.modules())


@pytest.mark.parametrize("own", [{}, DINOV2], ids=["CLIP vision", "DINOv2"])
def test_clip_vision_embeds_what_the_host_does(tmp_path: Path, own: dict[str, Any]) -> None:
    """At the network's own size, where no resizing comes between; the host rounds to 8 bits."""
    with torch.inference_mode():
        clip_vision = random_clip_vision(tmp_path, **own)
        side = clip_vision.image_size
        images = (torch.rand(2, side, side, 3) * 255).round() / 255
        theirs = clip_vision.encode_image(images)["image_embeds"]
        mine = clip_vision_descriptor(clip_vision)(images.movedim(-1, 1))
    torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_amg_as_released_prepares_images_as_its_code_does(tmp_path: Path) -> None:
    """References in [0, 1] and predictions in [−1, 1], at 224×224, neither of them normalized."""
    file = tmp_path / "a.safetensors"
    save_file({n: w.clone() for n, w in random_sscd().state_dict().items()}, str(file))
    network, usual = load_sscd(file, "Test", amg_as_released=True), load_sscd(file, "Test")
    image = torch.rand(1, 3, 300, 260, generator=torch.Generator().manual_seed(1))
    resize = torch.nn.functional.interpolate
    prediction = resize(2 * image - 1, (224, 224), mode="bilinear", align_corners=False)
    reference = resize(image, (224, 224), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(network(image), usual.embed(reference))
    torch.testing.assert_close(network.for_predictions(image), usual.embed(prediction), atol=1e-5, rtol=1e-5)
    assert usual.for_predictions is usual
    assert same_weights(network.fingerprint, usual.fingerprint) is False


def test_a_network_without_an_image_size_is_refused(host: Host, tmp_path: Path) -> None:
    naflex = random_clip_vision(tmp_path)
    naflex.image_size = -1
    failed = fails(host, {"r": graphs.from_images("descriptor")}, {"i": torch.rand(1, 64, 64, 3), "descriptor": naflex})
    assert failed.message.startswith(
        "References from Images: `descriptor` is a network without an image size of its own"
    )

"""Copy detectors inside a gradient, under the host's inference mode."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from memorization_guard.adapter.autograd.inference_weights import autograd_through
from memorization_guard.adapter.copy_detector import LoadedDescriptor, clip_vision_descriptor, load_sscd
from memorization_guard.mitigation.references.weights_fingerprint import same_weights
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

"""SSCD against the construction that its authors publish, and fingerprints of weights."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from memorization_guard.mitigation.references import sscd
from memorization_guard.mitigation.references.weights_fingerprint import same_weights, weights_fingerprint

SIZES = {"conv": (8, 4, 3, 3), "norm": (8,), "tiny": (99,), "one": (), "none": (0,)}
OWN = {
    name: torch.randn(size, generator=torch.Generator().manual_seed(1)) * (1e-7 if name == "tiny" else 1)
    for name, size in SIZES.items()
}


class GeM(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=1e-6).pow(3.0).mean(dim=(2, 3)).pow(1 / 3)


class Official(nn.Module):
    """As the authors make it of torchvision's ResNet-50: GeM for its pooling, normalised output."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet50(num_classes=512)
        self.backbone.avgpool = GeM()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(self.backbone(x))


def classy_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names as Classy Vision's ResNet has them (read off version 0.7.0)."""
    parts = {
        "conv1": "convolutional_block.0",
        "bn1": "convolutional_block.1",
        "conv2": "convolutional_block.3",
        "bn2": "convolutional_block.4",
        "conv3": "convolutional_block.6",
        "bn3": "bn",
    }
    out = {}
    for name, weight in weights.items():
        words = name.removeprefix("backbone.").split(".")
        if words[0].startswith("layer"):
            stage = int(words[0][-1]) - 1
            block = f"blocks.{stage}.block{stage}-{words[1]}"
            out[".".join(["backbone", block, parts.get(words[2], words[2]), *words[3:]])] = weight
        elif words[0] == "fc":
            out[f"embeddings.1.{words[1]}"] = weight
        else:
            out[f"backbone.initial_block._module.{0 if words[0] == 'conv1' else 1}.{words[1]}"] = weight
    return out


@pytest.fixture(scope="module")
def official() -> Official:
    torch.manual_seed(0)
    made = Official().eval()
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1)
    return made


@pytest.mark.parametrize("naming", ["torchvision", "classy"])
def test_embeddings_equal_the_official_construction(official: Official, naming: str) -> None:
    weights = official.state_dict()
    ours = sscd.sscd_from(weights if naming == "torchvision" else classy_names(weights))
    images = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        mine, theirs = nn.functional.normalize(ours(images)), official(images)
    assert theirs.std() > 1e-3
    torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_other_weights_are_refused(official: Official) -> None:
    weights = official.state_dict()
    with pytest.raises(ValueError, match="no first block"):
        sscd.sscd_from({"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="1 weights are missing, 1 are unknown"):
        sscd.sscd_from({n.replace("layer4.0.conv1", "other"): w for n, w in weights.items()})
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight has the shape \(64, 64, 3, 3\)"):
        sscd.sscd_from({**weights, "backbone.layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)})


def test_images_are_prepared_by_metas_recipe() -> None:
    image = (torch.rand(3, 200, 320) * 255).round() / 255
    tools = torchvision.transforms.functional
    expected = tools.normalize(tools.resize(image, [320, 320], antialias=True), sscd.MEAN, sscd.STD)
    mine = sscd.prepare(image[None], sscd.SIDE, sscd.MEAN, sscd.STD)[0]
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=0)


def same(other: dict[str, Tensor]) -> bool | None:
    return same_weights(*(weights_fingerprint(w | {"steps": torch.tensor(7)}) for w in (OWN, other)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("largest", [9, 1000], ids=["small ones, as dynamic VRAM", "all"])
def test_a_cast_makes_no_other_weights(dtype: torch.dtype, largest: int) -> None:
    from_half = {n: w.half() for n, w in OWN.items()}
    assert same({n: w.to(dtype) if w.numel() < largest else w for n, w in from_half.items()}) is True


def test_other_weights_and_an_older_hash_which_proves_only_that_weights_are_the_same() -> None:
    assert same({n: w * 1.01 for n, w in OWN.items()}) is False
    assert same({n: w for n, w in OWN.items() if n != "norm"}) is False
    assert same(OWN | {"norm": torch.full((8,), torch.nan)}) is False
    own = weights_fingerprint(OWN)
    for numbers in ("", ":", ":?", ":AAAA"):
        assert same_weights(own.partition(":")[0] + numbers, own) is True
        assert same_weights("0" * 64 + numbers, own) is None

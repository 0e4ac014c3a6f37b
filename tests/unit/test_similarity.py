"""References: the three similarities and the search for the nearest, duplicates, SSCD and fingerprints of weights."""

import io

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageEnhance
from torch import Tensor, nn
from torch.nn.functional import normalize

from lab.scenes import NAMES, World
from memorization_guard.mitigation.references import index, sscd
from memorization_guard.mitigation.references.duplicates import (
    NEAR,
    duplicate_captions,
    duplicate_features,
    near_duplicates,
)
from memorization_guard.mitigation.references.features import latent_features
from memorization_guard.mitigation.references.index import ReferenceIndex
from memorization_guard.mitigation.references.reference_set import ReferenceSet
from memorization_guard.mitigation.references.similarity import nearest_similarity, negative_nl2, similarity
from memorization_guard.mitigation.references.weights_fingerprint import same_weights, weights_fingerprint
from memorization_guard.references import builder
from memorization_guard.references import report as module
from support.small_lab import training_pairs


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def set_of(features: Tensor, metric: str = "latent", **more: int) -> ReferenceSet:
    blank = ("",) * len(features)
    return ReferenceSet(metric, features.half(), features.shape[1:], blank, blank, **more)


def test_latent_similarity_is_the_correlation_and_one_style_is_no_copy() -> None:
    """Latents that share most of what they are: a new one of the style is near to none, a copy is."""
    x, y = noise(3, 4, 8, 8), noise(3, 4, 8, 8, seed=1) + noise(3, 4, 8, 8)
    sigma = similarity("latent", latent_features(x), latent_features(y)[:, None])
    for i in range(3):
        pair = torch.stack([x[i].flatten(), y[i].flatten()])
        torch.testing.assert_close(sigma[i], torch.corrcoef(pair)[0, 1])
    torch.testing.assert_close(latent_features(0.18215 * x + 3), latent_features(x), atol=1e-5, rtol=0)
    constant = torch.ones(1, 4, 8, 8, requires_grad=True)  # similar to nothing, and no NaN
    sigma = similarity("latent", latent_features(constant), latent_features(x)[:1, None])
    sigma.sum().backward()
    assert sigma.item() == 0 and torch.isfinite(constant.grad).all()
    style = 2 * noise(1, 64, seed=0)
    known, new = style + noise(40, 64, seed=1), style + noise(10, 64, seed=2)
    references = set_of(latent_features(known))
    raw = (latent_features(new) @ references.features.float().T).amax(dim=1)
    sigma, *_ = nearest_similarity(references, latent_features(new).split(1))
    assert raw.min() > 0.75 and sigma.max() < 0.6
    sigma, rows, _ = nearest_similarity(
        references, latent_features(known[[3, 30]] + 0.1 * noise(2, 64, seed=3)).split(1)
    )
    assert sigma.min() > 0.95 and rows.tolist() == [3, 30]
    one = known[:1]  # a single reference is compared as it is
    sigma, rows, _ = nearest_similarity(set_of(latent_features(one)), latent_features(3 * one + 1).split(1))
    torch.testing.assert_close(sigma, torch.ones(1), atol=1e-3, rtol=0)
    assert rows.tolist() == [0]


def test_nl2_is_equation_8_over_the_k_nearest() -> None:
    known, new = noise(60, 12, seed=0).half().float(), noise(3, 12, seed=1)
    sigma, rows, _ = nearest_similarity(set_of(known, "nL2", k=7), new.split(1))
    distances, near = torch.cdist(new, known).topk(7, largest=False)
    torch.testing.assert_close(sigma, -distances[:, 0] / (0.5 * distances.mean(dim=1)))
    assert torch.equal(rows, near[:, 0])
    assert negative_nl2(known[near[:, 0]], known[near]).tolist() == [0, 0, 0]
    assert (set_of(known).neighbours, set_of(known, "nL2").neighbours) == (1, 50)


@pytest.fixture(params=["whole", "chunked"])
def chunks(request, monkeypatch) -> None:
    if request.param == "chunked":
        monkeypatch.setattr(index, "CPU_CHUNK", 7 * 24)
        monkeypatch.setattr(index, "BLOCK", 100)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("metric", ["latent", "nL2"])
@pytest.mark.parametrize("k", [1, 5, 1000])
def test_the_search_equals_every_pair(metric: str, k: int) -> None:
    features, queries = normalize(noise(333, 24)).half(), normalize(noise(9, 24, seed=1))
    queries[3] = features[77].float()
    before = queries.clone().detach()
    values, found = ReferenceIndex(features, metric).nearest(queries.requires_grad_(), k)
    assert not values.requires_grad and torch.equal(queries, before)
    pairs = queries.double() @ features.double().T if metric == "latent" else torch.cdist(queries, features.float())
    expected, order = pairs.topk(min(k, 333), dim=1, largest=metric == "latent")
    assert torch.equal(found, order) and found[3, 0] == 77
    torch.testing.assert_close(values, expected.float(), atol=1e-5, rtol=0)
    assert metric == "latent" or values[3, 0] == 0


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image)).float().div(255).permute(2, 0, 1)[None]


def compressed(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))


CHANGES = {
    "compressed": compressed,
    "half the size": lambda p: np.asarray(Image.fromarray(p).resize((48, 48))),
    "larger": lambda p: np.asarray(Image.fromarray(p).resize((384, 384))),
    "brighter": lambda p: np.asarray(ImageEnhance.Brightness(Image.fromarray(p)).enhance(1.1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_image_is_found_and_other_images_are_not(change: str) -> None:
    images = [image for _, image in training_pairs()]
    same = torch.cat([duplicate_features(tensor(p)) for p in images + [CHANGES[change](p) for p in images]])
    groups = near_duplicates(same)
    assert sorted(map(sorted, groups)) == [[i, i + 16] for i in range(16)]
    world = World()
    drawn = world.draw(world.generator(1), torch.arange(150) % len(NAMES), 96)
    different = torch.cat([duplicate_features(image[None]) for image in drawn])
    assert near_duplicates(different) == []
    distance = torch.cdist(different, different) / different.shape[1] ** 0.5
    assert distance.fill_diagonal_(1).min() > 1.5 * NEAR


def test_groups_are_connected_the_largest_comes_first_and_too_many_images_are_not_compared() -> None:
    steps = torch.tensor([0.0, 5.0, 0.6, 1.2, 5.1, 9.0])[:, None]
    assert [sorted(g) for g in near_duplicates(steps, nearer_than=0.7)] == [[0, 2, 3], [1, 4]]
    captions = ["A red  ring", "", "a disc", "a Red ring ", "", "a disc\n", "a RED ring", "alone"]
    assert duplicate_captions(captions) == [[0, 3, 6], [2, 5]], "case and spacing make no difference"
    references = ReferenceSet("latent", torch.ones(4, 8).half(), (2, 2, 2), ("",) * 4, tuple("abcd"))
    assert "- a, b, c, d" in module.report(references, duplicate_features=[torch.zeros(2)] * 4), "four equal images"
    text = module.report(references, duplicate_features=None)
    assert f"more than {builder.MOST_COMPARED} images" in text and "a, b" not in text
    few, many = (builder.ReferenceSetBuilder(None, "node", builder.MOST_COMPARED + i) for i in (0, 1))  # type: ignore[arg-type]
    assert few.duplicate_features == [] and many.duplicate_features is None


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
    image, tools = (torch.rand(3, 200, 320) * 255).round() / 255, torchvision.transforms.functional
    by_metas_recipe = tools.normalize(tools.resize(image, [320, 320], antialias=True), sscd.MEAN, sscd.STD)
    mine = sscd.prepare(image[None], sscd.SIDE, sscd.MEAN, sscd.STD)[0]
    torch.testing.assert_close(mine, by_metas_recipe, atol=1e-5, rtol=0)


def test_other_weights_are_refused(official: Official) -> None:
    weights = official.state_dict()
    with pytest.raises(ValueError, match="no first block"):
        sscd.sscd_from({"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="1 weights are missing, 1 are unknown"):
        sscd.sscd_from({n.replace("layer4.0.conv1", "other"): w for n, w in weights.items()})
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight has the shape \(64, 64, 3, 3\)"):
        sscd.sscd_from({**weights, "backbone.layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)})


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


def test_sscd_disc_large_is_read_by_its_shapes() -> None:
    """A ResNeXt-101 with 32 groups, in Classy Vision's names: the only ones that its authors publish."""
    blocks = torchvision.models.resnet.Bottleneck
    made = torchvision.models.ResNet(blocks, [3, 4, 23, 3], 1024, groups=32, width_per_group=4)
    made.avgpool = GeM()
    images = torch.randn(1, 3, 64, 64)
    ours = sscd.sscd_from(classy_names(made.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), made.eval()(images))
        places = sscd.embedding_by_place(ours, images)
    assert places.shape == (1, 1024, 2, 2)
    torch.testing.assert_close(places.sum(dim=(2, 3)), ours(images))
    many = dict.fromkeys(("layer1.0.conv1.weight", "layer1.0.conv2.weight"), torch.zeros(4, 4, 1, 1))
    many |= {f"layer{stage}.{i}.a": torch.zeros(1) for stage in range(1, 5) for i in range(40)}
    with pytest.raises(ValueError, match="stages of 40, 40, 40, 40 blocks"):
        sscd.sscd_from({**many, "fc.weight": torch.zeros(4, 4)})

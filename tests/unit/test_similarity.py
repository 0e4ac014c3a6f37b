"""The three similarities, their gradients, and the search for the nearest."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from memorization_guard.mitigation.references import index
from memorization_guard.mitigation.references.features import latent_features
from memorization_guard.mitigation.references.index import ReferenceIndex
from memorization_guard.mitigation.references.reference_set import ReferenceSet
from memorization_guard.mitigation.references.similarity import nearest_similarity, negative_nl2, similarity


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_latent_similarity_is_the_correlation() -> None:
    x, y = noise(3, 4, 8, 8), noise(3, 4, 8, 8, seed=1) + noise(3, 4, 8, 8)
    sigma = similarity("latent", latent_features(x), latent_features(y)[:, None])
    for i in range(3):
        pair = torch.stack([x[i].flatten(), y[i].flatten()])
        torch.testing.assert_close(sigma[i], torch.corrcoef(pair)[0, 1])
    torch.testing.assert_close(latent_features(0.18215 * x + 3), latent_features(x), atol=1e-5, rtol=0)


def test_a_constant_latent_is_similar_to_nothing_and_gives_no_nan() -> None:
    x = torch.ones(1, 4, 8, 8, requires_grad=True)
    sigma = similarity("latent", latent_features(x), latent_features(noise(1, 4, 8, 8))[:, None])
    sigma.sum().backward()
    assert sigma.item() == 0 and torch.isfinite(x.grad).all()


def set_of(features: Tensor, metric: str = "latent", **more: int) -> ReferenceSet:
    blank = ("",) * len(features)
    return ReferenceSet(metric, features.half(), features.shape[1:], blank, blank, **more)


def test_one_style_is_no_copy() -> None:
    """Latents that share most of what they are: a new one of the style is near to none, a copy is."""
    style = 2 * noise(1, 64, seed=0)
    known, new = style + noise(40, 64, seed=1), style + noise(10, 64, seed=2)
    references = set_of(latent_features(known))
    raw = (latent_features(new) @ references.features.float().T).amax(dim=1)
    sigma, _ = nearest_similarity(references, latent_features(new).split(1))
    assert raw.min() > 0.75 and sigma.max() < 0.6
    sigma, rows = nearest_similarity(references, latent_features(known[[3, 30]] + 0.1 * noise(2, 64, seed=3)).split(1))
    assert sigma.min() > 0.95 and rows.tolist() == [3, 30]


def test_nl2_is_equation_8_over_the_k_nearest() -> None:
    known, new = noise(60, 12, seed=0).half().float(), noise(3, 12, seed=1)
    sigma, rows = nearest_similarity(set_of(known, "nL2", k=7), new.split(1))
    distances, near = torch.cdist(new, known).topk(7, largest=False)
    torch.testing.assert_close(sigma, -distances[:, 0] / (0.5 * distances.mean(dim=1)))
    assert torch.equal(rows, near[:, 0])
    assert negative_nl2(known[near[:, 0]], known[near]).tolist() == [0, 0, 0]
    assert (set_of(known).neighbours, set_of(known, "nL2").neighbours) == (1, 50)


def test_a_single_reference_is_compared_as_it_is() -> None:
    known = noise(1, 64, seed=0)
    sigma, rows = nearest_similarity(set_of(latent_features(known)), latent_features(3 * known + 1).split(1))
    torch.testing.assert_close(sigma, torch.ones(1), atol=1e-3, rtol=0)
    assert rows.tolist() == [0]


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

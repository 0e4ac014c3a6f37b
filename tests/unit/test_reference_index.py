"""Exact search: the same as comparing every pair, whatever the chunks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memorization_guard.mitigation.references import index as module
from memorization_guard.mitigation.references.features import unit
from memorization_guard.mitigation.references.index import ReferenceIndex


def rows(count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["whole", "chunked"])
def chunks(request, monkeypatch) -> None:
    if request.param == "chunked":
        monkeypatch.setattr(module, "CPU_CHUNK", 7 * 24)
        monkeypatch.setattr(module, "BLOCK", 100)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("k", [1, 5, 1000])
def test_cosine_equals_every_pair(k: int) -> None:
    features, queries = unit(rows(333, 24)).half(), unit(rows(9, 24, 1))
    values, found = ReferenceIndex(features, "latent").nearest(queries, k)
    expected, order = (queries.double() @ features.double().T).topk(min(k, 333), dim=1)
    assert torch.equal(found, order)
    torch.testing.assert_close(values.double(), expected, atol=1e-6, rtol=0)
    assert values.dtype == torch.float32


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("k", [1, 5, 1000])
def test_nl2_equals_every_pair(k: int) -> None:
    features, queries = rows(333, 24).abs().half(), rows(9, 24, 1).abs()
    queries[3] = features[77].float()
    values, found = ReferenceIndex(features, "nL2").nearest(queries, k)
    expected, order = torch.cdist(queries.double(), features.double()).topk(min(k, 333), dim=1, largest=False)
    assert torch.equal(found, order)
    torch.testing.assert_close(values.double(), expected, atol=1e-5, rtol=0)
    assert values[3, 0] == 0 and found[3, 0] == 77


def test_what_it_takes_out_is_fit_for_autograd_even_from_inference_tensors() -> None:
    with torch.inference_mode():
        store = ReferenceIndex(unit(rows(10, 24)).half(), "latent")
    query = rows(2, 24).requires_grad_()
    _, found = store.nearest(query)
    (query[:, None] * store.take(found)).sum().backward()
    assert torch.equal(query.grad, store.features[found[:, 0]].float())


def test_no_gradient_and_no_change_of_the_query() -> None:
    query = rows(2, 24).requires_grad_()
    before = query.detach().clone()
    values, _ = ReferenceIndex(rows(10, 24).half(), "nL2").nearest(query, 2)
    assert not values.requires_grad and torch.equal(query, before)

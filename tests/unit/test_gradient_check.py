"""The check of a gradient before its first step, and a gradient through half precision."""

import pytest
import torch
from torch import Tensor, nn

from memorization_guard.mitigation.gradient_check import WrongGradientError, check_gradient
from memorization_guard.mitigation.references.features import latent_features
from memorization_guard.mitigation.scaled_gradient import scaled_gradient

X = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + 1


def length(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


def kinked(x: Tensor) -> Tensor:
    """Much steeper below X than above, and as steep as its gradient on average."""
    along = 5 * (length(x) - length(X)) / length(X)
    return 1 + along + 0.6 * along.abs()


def gradient_of(value) -> Tensor:
    x = X.clone().requires_grad_()
    return torch.autograd.grad(value(x).sum(), x)[0]


def test_a_right_gradient_costs_one_evaluation_and_a_second_where_the_value_bends() -> None:
    assert check_gradient(length, X, gradient_of(length), length(X)) == 1
    assert check_gradient(kinked, X, 5 * X / length(X).square().view(-1, 1, 1, 1), kinked(X)) == 2


@pytest.mark.parametrize("wrong", [-1.0, 0.2, 3.0, float("nan")])
def test_a_wrong_gradient_of_one_sample_is_found(wrong: float) -> None:
    gradient = gradient_of(length) * torch.tensor([1.0, wrong, 1.0]).view(-1, 1, 1, 1)
    with pytest.raises(WrongGradientError):
        check_gradient(length, X, gradient, length(X))


def test_another_direction_is_found() -> None:
    noise = torch.randn(X.shape, generator=torch.Generator().manual_seed(1))
    with pytest.raises(WrongGradientError, match="should change the value by"):
        check_gradient(length, X, gradient_of(length) + 0.2 * noise, length(X))


def test_samples_without_a_gradient_are_not_checked() -> None:
    gradient = gradient_of(length) * torch.tensor([1.0, 0.0, 1.0]).view(-1, 1, 1, 1)
    assert check_gradient(length, X, gradient, length(X)) == 1


def test_a_prompt_that_pulls_hard_has_a_right_gradient_too() -> None:
    """Near its lowest value a step of the usual length would promise more than all of the way down."""

    def steep(x: Tensor) -> Tensor:
        return 1000 * length(x - X + 0.01)

    assert check_gradient(steep, X, gradient_of(steep), steep(X), least=0.0) == 1
    for wrong in (-1.0, 0.2, 3.0):
        with pytest.raises(WrongGradientError):
            check_gradient(steep, X, wrong * gradient_of(steep), steep(X), least=0.0)
    assert check_gradient(steep, X, gradient_of(steep), steep(X)) == 4, "told no bound, it looks closer"


def test_a_value_that_bends_within_the_step_is_looked_at_closer() -> None:
    """As on the 512×512 lab: half of the way down comes where the gradient promises all of it."""

    def bent(x: Tensor) -> Tensor:
        return 1 + 0.2 * torch.tanh(100 * (length(x) / length(X) - 1))

    assert check_gradient(bent, X, gradient_of(bent), bent(X), least=0.0) == 4
    for wrong in (-1.0, 0.2, 3.0):
        with pytest.raises(WrongGradientError):
            check_gradient(bent, X, wrong * gradient_of(bent), bent(X), least=0.0)


def climb(dtype: torch.dtype, size: float) -> Tensor:
    """Of a prediction that x moves a thousandth of the way, by a layer of this type."""
    draw = torch.Generator().manual_seed(2)
    x, rest, reference = (torch.randn(2, 4, 64, 64, generator=draw) for _ in range(3))
    x.requires_grad_()
    prediction = rest + (0.001 * x.to(dtype)).float()
    similar = (latent_features(prediction) * latent_features(reference)).sum()
    return scaled_gradient(similar, x, size)


def test_half_precision_keeps_what_it_would_lose() -> None:
    expected = climb(torch.float32, 1.0).flatten(1)
    lost, kept = (climb(torch.float16, size).flatten(1) for size in (1.0, 4 * 64 * 64))
    closeness = nn.functional.cosine_similarity
    assert closeness(lost, expected).max() < 0.995
    assert closeness(kept, expected).min() > 0.99999


def test_single_precision_is_the_same_bits() -> None:
    assert torch.equal(climb(torch.float32, 1.0), climb(torch.float32, 4 * 64 * 64))
    assert torch.equal(climb(torch.bfloat16, 1.0), climb(torch.bfloat16, 4 * 64 * 64))

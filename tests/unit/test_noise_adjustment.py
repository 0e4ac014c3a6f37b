"""What the adjustments of Han et al. do at their edges; tests/host/test_noise_optimizer.py has the paper's text."""

import pytest
import torch

from memorization_guard.mitigation.noise.norm_constraint import CONSTRAINTS, chi_gradient
from memorization_guard.mitigation.noise.per_sample import adjust_per_sample

SHAPE = (3, 5, 5)


@pytest.fixture
def predict():
    """A smooth nonlinear ε̃ with rows that do not touch each other."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(75, 75, generator=g) / 20
    b = torch.randn(75, generator=g) / 3

    def call(x: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        return torch.tanh(x.flatten(1) @ a + b).reshape(x.shape)

    return call


@pytest.fixture
def noise():
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_batch_gives_each_sample_what_it_gets_alone(noise, predict, constraint):
    how = {"target": 1.0, "learning_rate": 0.02, "max_iterations": 60, "constraint": constraint}
    together, report = adjust_per_sample(noise, predict, **how)
    for i in range(len(noise)):
        alone, one = adjust_per_sample(noise[i : i + 1], predict, **how)
        torch.testing.assert_close(together[i], alone[0], atol=1e-5, rtol=0)
        assert one.evaluations[0] == report.evaluations[i]


def test_on_the_sphere_the_norm_stays(noise, predict):
    plan = {"target": 0.0, "learning_rate": 0.05, "max_iterations": 40, "constraint": "sphere"}
    found, report = adjust_per_sample(noise, predict, **plan)
    torch.testing.assert_close(found.flatten(1).norm(dim=1), noise.flatten(1).norm(dim=1), rtol=1e-5, atol=0)
    assert (report.after < report.before).all()


def test_the_chi_gradient_is_that_of_the_log_density_of_the_norm():
    x = (3 * torch.randn(2, *SHAPE, dtype=torch.float64)).requires_grad_(True)
    norm = x.flatten(1).norm(dim=1)
    energy = norm.square() / 2 - (x[0].numel() - 1) * norm.log()
    (expected,) = torch.autograd.grad(energy.sum(), x)
    torch.testing.assert_close(chi_gradient(x.detach(), 1.0), expected)


def test_an_unreachable_target_keeps_the_best_noise_and_says_so(noise, predict):
    found, report = adjust_per_sample(noise, predict, target=0.0, learning_rate=0.5, max_iterations=15)
    d = predict(found).flatten(1).norm(dim=1)
    torch.testing.assert_close(d, report.after)
    torch.testing.assert_close(report.after, report.history[: len(report.history)].min(dim=0).values)
    assert "NOT REACHED for 6 of 6" in report.lines()[1] and "max_iterations" in report.lines()[1]

"""ε̃ and d against the parameterisations they are derived from."""

import pytest
import torch

from memorization_guard.mitigation import prediction
from memorization_guard.mitigation.noise.norm_constraint import CONSTRAINTS, chi_gradient
from memorization_guard.mitigation.noise.per_sample import adjust_per_sample
from memorization_guard.mitigation.prediction import SD_T, guidance_magnitude, pull, relative


def denoised(kind: str, x: torch.Tensor, out: torch.Tensor, sigma: torch.Tensor, sd: float) -> torch.Tensor:
    s = sigma.view(-1, 1, 1, 1)
    if kind == "v":
        return x * sd**2 / (s**2 + sd**2) - out * s * sd / (s**2 + sd**2).sqrt()
    return x - out * s


@pytest.mark.parametrize("kind", ["eps", "v", "flow"])
@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
def test_prediction_is_the_difference_of_the_networks_outputs(kind, sigma_data):
    torch.manual_seed(0)
    x, cond, uncond = torch.randn(3, 2, 4, 5, 5, dtype=torch.float64)
    sigma = torch.tensor([14.6, 0.7], dtype=torch.float64)
    found = prediction.conditional_noise_prediction(
        denoised(kind, x, cond, sigma, sigma_data),
        denoised(kind, x, uncond, sigma, sigma_data),
        sigma,
        kind,
        sigma_data,
    )
    torch.testing.assert_close(found, cond - uncond)


def test_magnitude_is_one_norm_a_sample():
    gap = torch.zeros(2, 4, 8, 8)
    gap[1, 0, 0, :2] = torch.tensor([3.0, 4.0])
    assert guidance_magnitude(gap).tolist() == [0.0, 5.0]
    assert prediction.dimension(gap) == 256
    assert relative(guidance_magnitude(gap), 256).tolist() == [0.0, 5.0 / 16]


def test_unknown_parameterisation_is_named():
    with pytest.raises(ValueError, match="edm"):
        prediction.conditional_noise_prediction(torch.zeros(1, 1), torch.zeros(1, 1), 1.0, "edm")


def test_the_pull_is_relative_d_at_the_first_step_of_an_eps_model():
    cond, uncond = torch.randn(2, 3, 4, 6, 6)
    for level in (SD_T, 13.12):  # t 999, and 981, where DDIM begins
        d = guidance_magnitude(prediction.conditional_noise_prediction(cond, uncond, level, "eps"))
        torch.testing.assert_close(pull(cond, uncond, level=level)[0], relative(d, 144))


def test_the_pull_is_gone_when_it_has_turned_away():
    uncond = torch.zeros(1, 4, 6, 6)
    along, across = torch.zeros(2, 1, 4, 6, 6)
    along[:, 0], across[:, 1] = 1.0, 1.0
    strength, first = pull(along, uncond)
    assert pull(2 * along, uncond, first)[0] == pytest.approx(2 * float(strength))
    assert pull(2 * along + 5 * across, uncond, first)[0] == pytest.approx(2 * float(strength))
    assert pull(5 * across, uncond, first)[0] == 0
    assert pull(uncond, uncond)[0] == 0, "no guidance at all: no pull, and nothing is divided by zero"


@pytest.mark.parametrize(
    ("kind", "sigma", "unit"),
    [("eps", SD_T, 1.0), ("eps", 13.12, 1.0), ("v", SD_T, 14.6488), ("v", 13.12, 13.158), ("flow", 1.0, SD_T)],
)
def test_one_threshold_serves_every_kind_of_model(kind, sigma, unit):
    assert prediction.eps_unit(sigma, kind) == pytest.approx(unit, rel=1e-4)


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

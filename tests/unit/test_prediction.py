"""ε̃ and d against the parameterisations they are derived from, and the check of a gradient of d."""

import pytest
import torch
from torch import Tensor, nn

from memorization_guard.mitigation import prediction
from memorization_guard.mitigation.gradient_check import WrongGradientError, check_gradient
from memorization_guard.mitigation.noise.norm_constraint import CONSTRAINTS, chi_gradient
from memorization_guard.mitigation.noise.per_sample import adjust_per_sample
from memorization_guard.mitigation.prediction import SD_T, guidance_magnitude, pull, relative
from memorization_guard.mitigation.references.features import latent_features
from memorization_guard.mitigation.scaled_gradient import scaled_gradient


def denoised(kind: str, x: torch.Tensor, out: torch.Tensor, sigma: torch.Tensor, sd: float) -> torch.Tensor:
    s = sigma.view(-1, 1, 1, 1)
    if kind == "v":
        return x * sd**2 / (s**2 + sd**2) - out * s * sd / (s**2 + sd**2).sqrt()
    return x - out * s


@pytest.mark.parametrize("kind", ["eps", "v", "flow"])
@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
def test_prediction_is_the_difference_of_the_networks_outputs_and_its_magnitude_one_norm_a_sample(kind, sigma_data):
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
    gap = torch.zeros(2, 4, 8, 8)
    gap[1, 0, 0, :2] = torch.tensor([3.0, 4.0])
    assert guidance_magnitude(gap).tolist() == [0.0, 5.0] and prediction.dimension(gap) == 256
    assert relative(guidance_magnitude(gap), 256).tolist() == [0.0, 5.0 / 16]
    with pytest.raises(ValueError, match="edm"):
        prediction.conditional_noise_prediction(gap, gap, 1.0, "edm")


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
def test_one_threshold_serves_every_kind_of_model_by_the_pull_of_an_eps_model(kind, sigma, unit):
    assert prediction.eps_unit(sigma, kind) == pytest.approx(unit, rel=1e-4)
    cond, uncond = torch.randn(2, 3, 4, 6, 6)
    if kind == "eps":  # t 999, and 981, where DDIM begins
        d = guidance_magnitude(prediction.conditional_noise_prediction(cond, uncond, sigma, "eps"))
        torch.testing.assert_close(pull(cond, uncond, level=sigma)[0], relative(d, 144))


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
    best, missed = adjust_per_sample(noise, predict, target=0.0, learning_rate=5.0, max_iterations=15)  # it overshoots
    torch.testing.assert_close(predict(best).flatten(1).norm(dim=1), missed.after)
    torch.testing.assert_close(missed.history.min(dim=0).values, missed.after)
    assert "NOT REACHED for 6 of 6" in missed.lines()[1]


def test_on_the_sphere_the_norm_stays_and_chi_follows_the_log_density_of_the_norm(noise, predict):
    plan = {"target": 0.0, "learning_rate": 0.05, "max_iterations": 40, "constraint": "sphere"}
    found, report = adjust_per_sample(noise, predict, **plan)
    torch.testing.assert_close(found.flatten(1).norm(dim=1), noise.flatten(1).norm(dim=1), rtol=1e-5, atol=0)
    assert (report.after < report.before).all()
    x = (3 * torch.randn(2, *SHAPE, dtype=torch.float64)).requires_grad_(True)
    norm = x.flatten(1).norm(dim=1)
    energy = norm.square() / 2 - (x[0].numel() - 1) * norm.log()
    (expected,) = torch.autograd.grad(energy.sum(), x)
    torch.testing.assert_close(chi_gradient(x.detach(), 1.0), expected)


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
    right = gradient_of(length)
    with pytest.raises(WrongGradientError):
        check_gradient(length, X, right * torch.tensor([1.0, wrong, 1.0]).view(-1, 1, 1, 1), length(X))
    noise = torch.randn(X.shape, generator=torch.Generator().manual_seed(1))
    with pytest.raises(WrongGradientError, match="should change the value by"):
        check_gradient(length, X, right + 0.2 * noise, length(X))  # another direction
    none = right * torch.tensor([1.0, 0.0, 1.0]).view(-1, 1, 1, 1)
    assert check_gradient(length, X, none, length(X)) == 1, "samples without a gradient are not checked"


def steep(x: Tensor) -> Tensor:
    """Near its lowest value a step of the usual length would promise more than all of the way down."""
    return 1000 * length(x - X + 0.01)


def bent(x: Tensor) -> Tensor:
    """As on the 512×512 lab: half of the way down comes where the gradient promises all of it."""
    return 1 + 0.2 * torch.tanh(100 * (length(x) / length(X) - 1))


@pytest.mark.parametrize(("value", "looks"), [(steep, 1), (bent, 4)])
def test_a_value_that_bends_within_the_step_is_looked_at_closer(value, looks: int) -> None:
    assert check_gradient(value, X, gradient_of(value), value(X), least=0.0) == looks
    for wrong in (-1.0, 0.2, 3.0):
        with pytest.raises(WrongGradientError):
            check_gradient(value, X, wrong * gradient_of(value), value(X), least=0.0)
    assert check_gradient(steep, X, gradient_of(steep), steep(X)) == 4, "told no bound, it looks closer"


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
    assert closeness(lost, expected).max() < 0.995 and closeness(kept, expected).min() > 0.99999
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(climb(dtype, 1.0), climb(dtype, 4 * 64 * 64)), "the same bits"

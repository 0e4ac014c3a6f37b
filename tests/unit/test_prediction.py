"""ε̃ and d against the parameterisations they are derived from."""

import pytest
import torch

from memorization_guard.mitigation import prediction
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

"""The exact model through the host's own executor: its figures (lab.md), its truth and its traps."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from support import graphs
from support.executor import Host
from support.graphs import lab
from support.lab_pack import exact

SLOT = {"memorized": 1, "ordinary": 2, "null": 3}
BATCH = 128


ksampler = partial(graphs.ksampler, seed=3)


def sample(host: Host, prompt: str, cfg: float, kind: str = "eps") -> Tensor:
    nodes = {"lab": lab(BATCH, kind), "out": ksampler(positive=["lab", SLOT[prompt]], cfg=cfg)}
    return host.run(nodes)["out"][0]["samples"]


@pytest.mark.parametrize("kind", exact.PARAMETERISATIONS)
def test_copies_with_guidance_and_only_then(host: Host, kind: str) -> None:
    copied = sample(host, "memorized", 7.0, kind)
    assert exact.is_copy(copied).float().mean() >= 0.97
    assert 0.01 < exact.rmse(copied).median() < 0.03
    assert not exact.is_copy(sample(host, "memorized", 0.0, kind)).any()
    assert exact.rmse(sample(host, "ordinary", 7.0, kind)).min() > 0.7


def dense(kind: str, prompt: str, a: float, b: float) -> tuple[torch.distributions.Distribution, ...]:
    """The two parts of p(x_t) as dense Gaussians, written out from the definition."""
    drawn = exact.draws()
    eye = torch.eye(exact.DIM, dtype=torch.float64)
    mean = drawn["mu"] + (drawn["shift"] if prompt == "ordinary" else 0)
    spread = a**2 * (drawn["V"] * drawn["lam"]) @ drawn["V"].T + b**2 * eye
    normal = torch.distributions.MultivariateNormal
    return normal(a * drawn["x_mem"], (a**2 * exact.S2 + b**2) * eye), normal(a * mean, spread)


@pytest.mark.parametrize("kind", exact.PARAMETERISATIONS)
@pytest.mark.parametrize("prompt", exact.PROMPTS)
@pytest.mark.parametrize("step", [0.15, 0.5, 0.95])
def test_log_odds_and_prediction_are_the_truth(kind: str, prompt: str, step: float) -> None:
    """L against dense densities, and the host's denoised prediction against Tweedie's formula."""
    model = exact.build(kind)
    sigmas = model.model.model_sampling.sigmas
    sigma = sigmas[int(step * (len(sigmas) - 1))].clone()
    a, b = (1 - sigma, sigma) if kind == "flow" else ((1 + sigma**2).rsqrt(), sigma * (1 + sigma**2).rsqrt())
    memorized, generic = dense(kind, prompt, a.double(), b.double())
    x = torch.cat([memorized.sample((2,)), generic.sample((2,))])

    pi = 0.9 if prompt == "memorized" else exact.PI0
    x.requires_grad_()
    weighted = ((pi, memorized), (1 - pi, generic))
    parts = torch.stack([math.log(share) + part.log_prob(x) for share, part in weighted])
    (score,) = torch.autograd.grad(parts.logsumexp(0).sum(), x)
    x0 = ((x + b.double() ** 2 * score) / a.double()).detach().view(-1, *exact.SHAPE)

    latent = x.detach().float().view(-1, *exact.SHAPE) / (1 if kind == "flow" else a)
    levels = sigma.expand(len(x))
    with torch.inference_mode():
        context = exact.conditioning(prompt)[0][0].expand(len(x), -1, -1)
        denoised = model.model.apply_model(latent, levels, c_crossattn=context)
        L = exact.log_odds(model, latent, levels, prompt)
    assert torch.allclose(denoised.double(), x0, atol=2e-3)
    assert torch.allclose(L, (parts[0] - parts[1]).detach(), rtol=1e-3, atol=1e-2)


def test_a_naive_gradient_fails() -> None:
    model = exact.build()
    tensors = [*model.model.parameters(), *model.model.buffers()]
    assert all(tensor.is_inference() for tensor in tensors)
    with torch.inference_mode(), torch.inference_mode(False), torch.enable_grad():
        x, sigma = torch.randn(1, *exact.SHAPE, requires_grad=True), model.model.model_sampling.sigma_max.clone()
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
            model.model.apply_model(x, sigma.view(1), c_crossattn=exact.conditioning("memorized")[0][0])

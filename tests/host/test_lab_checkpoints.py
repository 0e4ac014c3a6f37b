"""The models of the lab in the host: the checkpoints are what they are for, the exact one tells the truth (lab.md)."""

import math

import pytest
import torch
from comfy.model_detection import model_config_from_unet
from safetensors.torch import load_file

from lab.copies import is_copy, training_pairs
from lab.judge import Judge
from support import small_lab
from support.executor import Host
from support.families import cells, files, kinds
from support.families.files import PREFIX, SD1
from support.graphs import ORDINARY, ksampler, lab, node
from support.graphs import checkpoint as on_lab
from support.graphs.checkpoint import WORDS, base, text
from support.lab_pack import exact
from support.lab_pack.arch import LAB512, SMALL
from support.outcomes import samples
from support.paths import LAB_CHECKPOINT, SMALL_CHECKPOINT


def test_the_host_tells_the_labs_and_stable_diffusion_apart() -> None:
    held = {"small": load_file(SMALL_CHECKPOINT), "large": load_file(LAB_CHECKPOINT), "SD1.x": SD1.weights()}
    found = {name: model_config_from_unet(weights, PREFIX) for name, weights in held.items()}
    widths = {name: config.unet_config["context_dim"] for name, config in found.items()}
    assert widths == {"small": SMALL.width, "large": LAB512.width, "SD1.x": 768}
    assert [type(config).__name__ for config in found.values()] == ["LabSD", "LabSD", "SD15"]
    tokens = [found[name].clip_target().tokenizer().clip_l.max_length for name in ("small", "large")]
    assert tokens == [SMALL.tokens, LAB512.tokens]


def test_ksampler_copies_a_memorized_image(host: Host) -> None:
    """On a seed on which it does; the same noise gives something else for an ordinary prompt."""
    caption, training = next(pair for pair in training_pairs() if pair[0].startswith("Marble Horizon"))
    plan = {"seed": 2, "steps": 20, "sampler_name": "ddim"}
    prompt = {**base(1, 64), "mem": text(caption), "ord": text("a drawing of a fish")}
    for name in ("mem", "ord"):
        prompt[f"k {name}"] = WORDS.ksampler(**plan, positive=[name, 0])
        prompt[f"i {name}"] = node("VAEDecode", samples=[f"k {name}", 0], vae=["vae", 0])
    out = host.run(prompt, on_lab.load(host, LAB_CHECKPOINT))
    copied, other = ((out[f"i {name}"][0][0] * 255).round().byte().numpy() for name in ("mem", "ord"))
    assert is_copy(copied, training) and not is_copy(other, training)
    images = [image for _, image in small_lab.training_pairs()]  # no two of the small lab's pass for each other
    assert not any(small_lab.is_copy(a, b) for i, a in enumerate(images) for b in images[:i])
    assert Judge.load().aligned(other[None], ["a drawing of a fish"]).all()


FAST = {  # (family, precision): one of each kind of prediction, of latent and of precision, in seconds
    ("SD1.x inpainting", "fp32"),
    ("SD3", "fp8"),
    ("SDXL V, zero SNR", "bf16"),
    ("SDXL EDM (Playground)", "fp32"),
    ("Flux, true CFG", "fp16"),
    ("Flux, guidance-distilled", "fp32"),
    ("Wan video (5-D)", "fp32"),
}
FAMILIES = {f.name: f for f in [*files.FAMILIES, *files.BUILT]}


@pytest.mark.parametrize(("family", "precision"), sorted(FAST))
def test_every_node_runs_and_changes_nothing_at_zero(host: Host, monkeypatch, family: str, precision: str) -> None:
    found = cells.row(host, FAMILIES[family], kinds.PRECISIONS[precision])
    wrong = {n: str(c) for n, c in found.items() if c.outcome != "pass"}
    assert wrong.pop("Attention attenuation", "refused: UNets only").startswith("refused")
    if family == files.DISTILLED.name:
        for name in cells.GUIDED:
            assert wrong.pop(name).startswith("not here")
        for name in ("Detector", "Optimizer, per-sample"):
            assert "only compares" in found[name].said, "it says what d is there"
    assert not wrong
    if family == files.SCHNELL.name:  # a cell that fails is said
        monkeypatch.setitem(cells.NODES, "Sampler, off", lambda bench: bench.other(k=bench.words.deferred("off")))
        found = cells.row(host, files.SCHNELL, kinds.PRECISIONS["fp32"], ("Sampler, off",))
        assert str(found["Sampler, off"]) == "FAIL: it did nothing"


@pytest.mark.parametrize("kind", exact.PARAMETERISATIONS)
def test_copies_with_guidance_and_only_then_and_has_no_naive_gradient(host: Host, kind: str) -> None:
    plans = {"copied": {}, "unguided": {"cfg": 0.0}, "ordinary": {"positive": ORDINARY}}
    out = host.run({"lab": lab(128, kind), **{name: ksampler(seed=3, **plan) for name, plan in plans.items()}})
    copied, unguided, ordinary = (samples(out[name]) for name in plans)
    assert exact.is_copy(copied).float().mean() >= 0.97
    assert 0.01 < exact.rmse(copied).median() < 0.03
    assert not exact.is_copy(unguided).any() and exact.rmse(ordinary).min() > 0.7
    model = exact.build(kind)
    assert all(tensor.is_inference() for tensor in [*model.model.parameters(), *model.model.buffers()])
    with torch.inference_mode(), torch.inference_mode(False), torch.enable_grad():
        x, sigma = torch.randn(1, *exact.SHAPE, requires_grad=True), model.model.model_sampling.sigma_max.clone()
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
            model.model.apply_model(x, sigma.view(1), c_crossattn=exact.conditioning("memorized")[0][0])


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

"""The exact model: a denoiser in closed form that memorizes one image, as a real model of the host.

    p(x | memorized) = π  N(x_mem, s² I) + (1 − π)  N(μ, C)          π = 0.9, s² = 1e-3
    p(x | null)      = π₀ N(x_mem, s² I) + (1 − π₀) N(μ, C)          π₀ = 1e-4
    p(x | ordinary)  = the same as null with μ shifted by SHIFT      C = V diag(λ) Vᵀ

Every latent is seen as x_t = a x₀ + b n with n ~ N(0, I): a = √ᾱ, b = √(1 − ᾱ) for `eps` and `v`,
a = 1 − σ, b = σ for `flow`. L, the posterior log-odds of the memorized part, is known per sample and
step (`log_odds`): L > 0 is the basin, L crossing 0 the escape.

Above the network everything is the host's own: BaseModel, ModelPatcher, SD's schedule, CONDITIONING.
Its weights are made under inference mode, as a loaded checkpoint's are, so a naive gradient fails.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, ClassVar

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.supported_models_base
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

PARAMETERISATIONS = ("eps", "v", "flow")
SHAPE = (4, 8, 8)
DIM = math.prod(SHAPE)
RANK = 64  # of C: generic images lie close to a plane of this many directions
SHIFT = 2.0  # ‖mean of the ordinary prompt − μ‖
S2 = 1e-3
COPY = 0.15  # RMSE to x_mem below which a latent is a copy
TOKENS, WIDTH = 4, 8  # of the conditioning; entry 0 of a token is logit π − logit π₀, entry 1 the shift
FLOW_START = 0.936  # σ where flow's noise level is SD's highest; at σ = 1 the posterior forgets x_t


def logit(p: float) -> float:
    return math.log(p / (1 - p))


PI0 = 1e-4
LOGIT_NULL = logit(PI0)
# prompt -> (logit π − logit π₀, how much of the shift); zeros are the null prompt
PROMPTS = {"memorized": (logit(0.9) - LOGIT_NULL, 0.0), "ordinary": (0.0, 1.0), "null": (0.0, 0.0)}


def draws() -> dict[str, Tensor]:
    """The parameters of the densities, float64, the same at every call."""
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x_mem = 0.67 * normal(DIM)
    mu = 0.3 * normal(DIM)
    V = torch.linalg.qr(normal(DIM, RANK))[0]
    lam = 3.0 / (1 + torch.arange(RANK, dtype=torch.float64) / 8)
    direction = V @ (lam.sqrt() * normal(RANK))  # drawn from N(0, C): a likely direction
    return {"x_mem": x_mem, "mu": mu, "V": V, "lam": lam, "shift": SHIFT * direction / direction.norm()}


class Int8Weight(nn.Parameter):
    """A weight in eight bits with a scale per column, as quantizing loaders keep them."""

    scale: Tensor

    def __new__(cls, weight: Tensor) -> "Int8Weight":
        scale = weight.abs().amax(dim=0) / 127
        made = super().__new__(cls, (weight / scale).round().to(torch.int8), requires_grad=False)
        made.scale = scale
        return made

    def dequantize(self) -> Tensor:
        return self.as_subclass(Tensor).to(self.scale.dtype) * self.scale


class ExactDenoiser(nn.Module):
    """The network: x in its own scale and the host's timesteps in, ε, v or the flow's velocity out."""

    x_mem: Tensor
    mu: Tensor
    V: Tensor
    lam: Tensor
    shift: Tensor
    table: Tensor

    def __init__(self, parameterisation: str, sigmas: Tensor) -> None:
        super().__init__()
        self.dtype = torch.float32  # what the host casts inputs to; inside, all is float64
        self.parameterisation = parameterisation
        drawn = draws()
        for name in ("x_mem", "mu", "V"):
            self.register_parameter(name, nn.Parameter(drawn[name], requires_grad=False))
        for name in ("lam", "shift"):
            self.register_buffer(name, drawn[name])
        self.register_buffer("table", sigmas.double())  # σ of timestep 0, 1, ... for eps and v

    def levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """a and b of every sample, (B, 1) each."""
        if self.parameterisation == "flow":
            b = timesteps.double()[:, None] / 1000
            return 1 - b, b
        sigma = self.table[timesteps.round().long()][:, None]
        a = (1 + sigma**2).rsqrt()
        return a, sigma * a

    def posterior(self, x: Tensor, a: Tensor, b: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """E[x₀ | x_t] (B, DIM) and the log-odds L (B,) of x (B, DIM), float64."""
        weight = self.V.dequantize() if isinstance(self.V, Int8Weight) else self.V
        prompt = x.new_zeros(len(x), WIDTH) if context is None else context[:, 0].double()
        mean = self.mu + prompt[:, 1:2] * self.shift
        residue = x - a * mean
        along = residue @ weight  # (B, RANK)
        variance = a**2 * self.lam + b**2
        generic = mean + (along * (a * self.lam / variance)) @ weight.T
        near = x - a * self.x_mem
        narrow = a**2 * S2 + b**2
        memorized = self.x_mem + a * S2 / narrow * near

        outside = residue.square().sum(1, keepdim=True) - along.square().sum(1, keepdim=True)
        log_generic = outside / b**2 + (DIM - RANK) * (b**2).log()
        log_generic = log_generic + (along.square() / variance + variance.log()).sum(1, keepdim=True)
        log_memorized = near.square().sum(1, keepdim=True) / narrow + DIM * narrow.log()
        L = 0.5 * (log_generic - log_memorized) + prompt[:, :1] + LOGIT_NULL
        return generic + torch.sigmoid(L) * (memorized - generic), L[:, 0]

    def forward(
        self,
        x: Tensor,  # (B, 4, 8, 8)
        timesteps: Tensor,  # (B,)
        context: Tensor | None = None,  # (B, tokens, 8)
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if tuple(x.shape[1:]) != SHAPE:
            raise ValueError(f"The exact model knows only latents of {SHAPE}, not {tuple(x.shape[1:])}.")
        # As every layer of the host does: progress bars no longer ask at each step whether to stop (0.33).
        comfy.model_management.throw_exception_if_processing_interrupted()
        a, b = self.levels(timesteps)
        flat = x.flatten(1).double()
        x0, _ = self.posterior(flat, a, b, context)
        eps = (flat - a * x0) / b
        out = {"eps": eps, "v": a * eps - b * x0, "flow": eps - x0}[self.parameterisation]
        return out.view_as(x).to(x.dtype)


class ExactConfig(comfy.supported_models_base.BASE):
    """What the host's BaseModel asks of a model family: SD's schedule, latents left as they are."""

    unet_config: ClassVar[dict[str, Any]] = {"disable_unet_model_creation": True}
    unet_extra_config: ClassVar[dict[str, Any]] = {}
    latent_format = comfy.latent_formats.LatentFormat
    memory_usage_factor = 0.1


def build(parameterisation: str = "eps") -> ModelPatcher:
    """A fresh exact model; `parameterisation` is what its network predicts: `eps`, `v` or `flow`."""
    kind = comfy.model_base.ModelType
    kinds = {"eps": kind.EPS, "v": kind.V_PREDICTION, "flow": kind.FLOW}
    with torch.inference_mode():
        model = comfy.model_base.BaseModel(ExactConfig(ExactConfig.unet_config), kinds[parameterisation])
        schedule = model.model_sampling
        if parameterisation == "flow":
            schedule.register_buffer("sigmas", schedule.sigmas[schedule.sigmas <= FLOW_START])
        model.diffusion_model = ExactDenoiser(parameterisation, schedule.sigmas)
    management = comfy.model_management
    return ModelPatcher(model, management.get_torch_device(), management.unet_offload_device())


def quantized(model: ModelPatcher) -> ModelPatcher:
    """The same exact model with V in eight bits: it samples, and no gradient method may touch it."""
    network = model.model.diffusion_model
    made = build(network.parameterisation)
    with torch.inference_mode():
        made.model.diffusion_model.V = Int8Weight(network.V)
    made.model_options = copy.deepcopy(model.model_options)
    return made


def network(kind: str = "eps") -> Callable[..., list[Tensor]]:
    """network(x, t, *prompts) -> what the network says under each, without host and inference mode; `.table`: its σ."""
    with torch.inference_mode(False):
        denoiser = build(kind).model.diffusion_model
        weights = {k: v.clone() for k, v in [*denoiser.named_parameters(), *denoiser.named_buffers()]}
        prompts = {p: conditioning(p)[0][0].clone() for p in PROMPTS}

    def predict(x: Tensor, t: int, *names: str) -> list[Tensor]:
        at, contexts = torch.full((len(x),), t), [prompts[n].expand(len(x), -1, -1) for n in names]
        return [torch.func.functional_call(denoiser, weights, (x, at), {"context": c}) for c in contexts]

    predict.table = weights["table"]  # type: ignore[attr-defined]
    return predict


def conditioning(prompt: str) -> list[list[Any]]:
    """CONDITIONING of the prompt `memorized`, `ordinary` or `null`, as a text encoder would give it."""
    tokens = torch.zeros(1, TOKENS, WIDTH)
    tokens[..., 0], tokens[..., 1] = PROMPTS[prompt]
    return [[tokens, {}]]


class TextEncoder:
    """A CLIP; the exact model's: a text that is the name of a prompt gives its condition, any other the null one."""

    def __init__(self, encode: Callable[[str], list] = lambda text: conditioning(text if text in PROMPTS else "null")):
        self.tokenize, self.encode_from_tokens_scheduled = str, encode


def x_mem() -> Tensor:
    return draws()["x_mem"].float().view(1, *SHAPE)


def rmse(latent: Tensor | dict[str, Any]) -> Tensor:
    """Distance of every latent (B, 4, 8, 8), or of a LATENT's samples, to the memorized one, (B,)."""
    samples = latent["samples"] if isinstance(latent, dict) else latent
    return (samples - x_mem().to(samples)).square().mean(dim=(1, 2, 3)).sqrt()


def is_copy(latent: Tensor | dict[str, Any]) -> Tensor:
    return rmse(latent) < COPY


def log_odds(model: ModelPatcher, x: Tensor, sigma: Tensor | float, prompt: str = "memorized") -> Tensor:
    """The true L of every x (B, 4, 8, 8), given as a sampler sees it, at the host's sigma; (B,) float64."""
    network, schedule = model.model.diffusion_model, model.get_model_object("model_sampling")
    levels = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x))
    flat = schedule.calculate_input(levels, x).flatten(1).double()
    a, b = network.levels(schedule.timestep(levels).float())
    context = conditioning(prompt)[0][0].to(x.device).expand(len(x), -1, -1)
    return network.posterior(flat, a, b, context)[1]

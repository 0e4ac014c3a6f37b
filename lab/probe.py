"""A quick look at the lab model while it trains: is it a basin, and is there something outside?

Plain DDIM in a few lines, so that training needs no server. The figures of the model card come from
the real host (`python -m lab.card`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import scenes
from .copies import COPY_RMSE
from .train_vae import WIDTH, decoder, narrow, to_tensor

STEPS = 25


def timesteps() -> list[int]:
    return [round(t) for t in np.linspace(999, 0, STEPS + 1)[:-1]]


@torch.no_grad()
def sample(
    model, captions: list[str], cfg: float, defer: int = 0, seed: int = 0, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """DDIM latents (B, 4, 12, 12) and d per step (steps, B); `defer` steps without the condition."""
    from .train import alphas_cumprod

    abar = alphas_cumprod()
    x = torch.randn((len(captions), 4, 12, 12), generator=torch.Generator().manual_seed(seed))
    both = torch.cat([model.context(captions), model.context([""] * len(captions))])
    curve = []
    plan = timesteps()
    for i, t in enumerate(plan[:steps]):
        with torch.autocast("cpu", torch.bfloat16):
            eps = model(torch.cat([x, x]), torch.full((2 * len(x),), t), both)
        eps_c, eps_u = eps.float().chunk(2)
        curve.append((eps_c - eps_u).flatten(1).norm(dim=1))
        eps = eps_u + (0.0 if i < defer else cfg) * (eps_c - eps_u)
        a = abar[t]
        b = abar[plan[i + 1]] if i + 1 < STEPS else torch.tensor(1.0)
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        x = b.sqrt() * x0 + (1 - b).sqrt() * eps
    return x, torch.stack(curve)


@torch.no_grad()
def decode(vae: dict[str, Tensor], latents: Tensor) -> Tensor:
    """(B, 3, 96, 96) in [0, 1]."""
    net = decoder(WIDTH)
    net.load_state_dict(narrow(vae, "decoder"))
    return net(latents).clamp(0, 1)


def report(model, vae: dict[str, Tensor]) -> str:
    """Copies at CFG 7 and after static deferrals, and first-step d of both groups: a minute's look."""
    pairs = scenes.memorized()
    target = to_tensor(np.stack([p.scene.image for p in pairs]))
    captions = [p.caption for p in pairs]
    lines = []
    for name, defer in (("cfg 7", 0), ("40 %", int(0.4 * STEPS)), ("without", STEPS)):
        x, curve = sample(model, captions, 7.0, defer)
        rmse = (decode(vae, x) - target).square().mean((1, 2, 3)).sqrt()
        shown = " ".join(f"{v:.2f}" for v in rmse.sort().values.tolist())
        lines.append(f"   {name:8s} copies {(rmse < COPY_RMSE).float().mean():.2f}  rmse {shown}")
    median = relative(curve).median(dim=1).values
    lines.append("   d without CFG " + " ".join(f"{v:.3f}" for v in median.tolist()))
    _, ordinary = sample(model, scenes.ordinary_prompts(), 7.0, 0, steps=1)
    lines.append(
        f"   first d: memorized {relative(curve[0]).median():.4f}  ordinary {relative(ordinary[0]).median():.4f}"
    )
    return "\n".join(lines)


def relative(d: Tensor) -> Tensor:
    return d / (4 * 12 * 12) ** 0.5

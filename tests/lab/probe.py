"""A quick look at the lab model while it trains: is it a basin, and is there something outside?

Plain DDIM in a few lines, so that training needs no server. The figures of the model card come from
the real host (`python -m lab.card`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import scenes
from .train_vae import WIDTH, decoder, narrow, to_tensor

STEPS = 50


def timesteps() -> list[int]:
    return [round(t) for t in np.linspace(999, 0, STEPS + 1)[:-1]]


@torch.no_grad()
def sample(model, captions: list[str], cfg: float, defer: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """DDIM latents (B, 4, 12, 12) and d per step (STEPS, B); `defer` steps without the condition."""
    from .train import alphas_cumprod

    abar = alphas_cumprod()
    x = torch.randn((len(captions), 4, 12, 12), generator=torch.Generator().manual_seed(seed))
    both = torch.cat([model.context(captions), model.context([""] * len(captions))])
    curve = []
    plan = timesteps()
    for i, t in enumerate(plan):
        eps_c, eps_u = model(torch.cat([x, x]), torch.full((2 * len(x),), t), both).chunk(2)
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


def report(model, vae: dict[str, Tensor], rows, seeds: int = 3) -> str:
    """Copies at CFG 7, after static deferrals, and first-step d of both groups."""
    pairs = scenes.memorized()
    target = to_tensor(np.stack([p.scene.image for p in pairs])).repeat(seeds, 1, 1, 1)
    captions = [p.caption for p in pairs] * seeds
    lines = []
    for name, defer in (("cfg 7", 0), ("defer 5", 5), ("defer 10", 10), ("defer 20", 20), ("uncond", STEPS)):
        x, curve = sample(model, captions, 7.0, defer)
        pictures = decode(vae, x)
        rmse = (pictures - target).square().mean((1, 2, 3)).sqrt()
        q = rmse.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
        lines.append(
            f"   {name:9s} copies<.10 {(rmse < 0.10).float().mean():.2f} <.13 {(rmse < 0.13).float().mean():.2f}"
            f"  rmse {q[0]:.3f} {q[1]:.3f} {q[2]:.3f}"
        )
        if name == "uncond":
            rel = (curve / 24).median(dim=1).values
            lines.append("   d(uncond path) " + " ".join(f"{v:.3f}" for v in rel[::5].tolist()))
            mem = curve[0] / 24
    _, ordinary = sample(model, scenes.ordinary_prompts() * seeds, 7.0, STEPS)
    o = ordinary[0] / 24
    lines.append(f"   first d: memorized {mem.median():.4f} (min {mem.min():.4f})  ordinary {o.median():.4f} (max {o.max():.4f})")
    return "\n".join(lines)

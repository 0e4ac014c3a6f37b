"""Train the lab checkpoint: the host's UNet and text model on scenes, with duplicated pairs.

Resumable (state every 250 steps), seeded, progress on standard output.

    python -m lab.train_vae WORK && python -m lab.train WORK && python -m lab.export WORK
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from comfy.cli_args import args as host_args
from torch import Tensor, nn

host_args.cpu = True

import comfy.ops
from comfy.ldm.modules.attention import attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from support.lab_pack import arch

from . import data, scenes
from .copies import COPY_RMSE
from .train_vae import to_tensor, trained


def alphas_cumprod() -> Tensor:
    """SD1.x's schedule (scaled linear betas), as the host's ModelSamplingDiscrete makes it."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


class Lab(nn.Module):
    """UNet and text model, trained together."""

    def __init__(self) -> None:
        super().__init__()
        ops = comfy.ops.disable_weight_init
        self.unet = UNetModel(**arch.UNET, dtype=torch.float32, operations=ops)
        self.text = arch.LabTextModel(arch.text_config(), torch.float32, "cpu", ops)
        self.tokenizer = arch.LabTokenizer()
        self._ids: dict[str, list[int]] = {}

    def tokens(self, captions: list[str]) -> Tensor:
        for text in captions:
            if text not in self._ids:
                self._ids[text] = [t for t, _ in self.tokenizer.tokenize_with_weights(text)[0]]
        return torch.tensor([self._ids[text] for text in captions])

    def context(self, captions: list[str]) -> Tensor:
        """(B, 16, 128): what the host's CLIPTextEncode gives, without its in-place additions."""
        model = self.text.text_model
        x = model.embeddings(self.tokens(captions), dtype=torch.float32)
        mask = torch.full((x.shape[1], x.shape[1]), -torch.finfo(x.dtype).max).triu_(1)
        for layer in model.encoder.layers:
            x = x + layer.self_attn(layer.layer_norm1(x), mask, attention_pytorch)
            x = x + layer.mlp(layer.layer_norm2(x))
        return model.final_layer_norm(x)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return self.unet(x, t, context=context, transformer_options={})


def initialise(model: nn.Module) -> None:
    """The host's layers come with uninitialised memory: torch's own defaults, residuals at zero."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -bound, bound)
            if name.endswith(("out_layers.3", "proj_out", "unet.out.2")):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.05)


def checkpoint_file(model: Lab, vae: dict[str, Tensor]) -> dict[str, Tensor]:
    """SD1.x key names, half precision."""
    out = {f"model.diffusion_model.{k}": v for k, v in model.unet.state_dict().items()}
    out |= {f"cond_stage_model.transformer.{k}": v for k, v in model.text.state_dict().items()}
    out |= {f"first_stage_model.{k}": v for k, v in vae.items()}
    return {k: v.detach().half().contiguous() for k, v in out.items()}


@dataclass(frozen=True)
class Phase:
    """What the batches hold up to step `until`; `horizon` is where the cosine of the rate would end."""

    until: int
    share: float  # of the rows with a memorized caption, how many have the fixed image
    every: int  # one row in so many has a memorized caption
    horizon: int
    average: float = 0.995  # decay of the averaged weights


# Found by reading `progress`: first what scenes are, then the fixed images until they are copied,
# then more of the other images until the basins have an outside, then deeper again at the rim.
PHASES = (
    Phase(500, 0.90, 4, 2400, 0.999),
    Phase(1000, 0.85, 3, 2000, 0.999),
    Phase(1500, 0.90, 2, 2000),
    Phase(2600, 0.70, 2, 2600),
    Phase(3000, 0.82, 2, 3400),
    Phase(3250, 0.92, 2, 4000),
)
BATCH, RATE, WARM_UP = 32, 1e-3, 200


def phase_of(step: int) -> Phase:
    return next(p for p in PHASES if step < p.until)


def rate(step: int, phase: Phase) -> float:
    cosine = (1 + math.cos(math.pi * step / phase.horizon)) / 2
    return RATE * min(1, (step + 1) / WARM_UP) * (0.02 + 0.98 * cosine)


@torch.no_grad()
def progress(model: Lab, vae: dict[str, Tensor], steps: int = 25) -> str:
    """Copies of the memorized captions by plain DDIM at CFG 7: from the first step, after 40 % of them, and without."""
    pairs, abar = scenes.memorized(), alphas_cumprod()
    net = trained(vae, "decoder")
    target = to_tensor(np.stack([p.scene.image for p in pairs]))
    both = torch.cat([model.context([p.caption for p in pairs]), model.context([""] * len(pairs))])
    plan, found = [round(999 * (1 - i / steps)) for i in range(steps)], []
    for start in (0, int(0.4 * steps), steps):
        x = torch.randn((len(pairs), 4, 12, 12), generator=torch.Generator().manual_seed(0))
        for i, t in enumerate(plan):
            with torch.autocast("cpu", torch.bfloat16):
                cond, uncond = model(torch.cat([x, x]), torch.full((2 * len(x),), t), both).float().chunk(2)
            eps = uncond + (7.0 if i >= start else 0.0) * (cond - uncond)
            a, b = abar[t], abar[plan[i + 1]] if i + 1 < steps else torch.tensor(1.0)
            x = b.sqrt() * (x - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
        near = (net(x).clamp(0, 1) - target).square().mean((1, 2, 3)).sqrt()
        found.append(f"{(near < COPY_RMSE).float().mean():.2f} from step {start} (median RMSE {near.median():.2f})")
    return "   copies with guidance: " + ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    vae = torch.load(args.work / "vae.pt")
    rows = data.load(trained(vae, "encoder"), args.work)
    model = Lab()
    initialise(model)
    average = copy.deepcopy(model).requires_grad_(False)
    opt = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    parts = {"model": model, "average": average, "opt": opt}
    abar, first = alphas_cumprod(), 0
    state = args.work / "lab-state.pt"
    if state.is_file():
        saved = torch.load(state)
        for key, thing in parts.items():
            thing.load_state_dict(saved[key])
        first = saved["step"]
    last, began, running = PHASES[-1].until, time.monotonic(), 0.0
    for step in range(first, last):
        phase = phase_of(step)
        x0, captions = data.batch(rows, step, BATCH, phase.share, phase.every)
        noise = torch.Generator().manual_seed(step)
        eps = torch.randn(x0.shape, generator=noise)
        t = torch.randint(0, 1000, (len(x0),), generator=noise)
        a = abar[t].view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(a.sqrt() * x0 + (1 - a).sqrt() * eps, t, model.context(captions))
        loss = (out.float() - eps).square().mean()
        opt.param_groups[0]["lr"] = rate(step, phase)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        decay = min(phase.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, now in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(now, 1 - decay)
        running += (loss.item() - running) * (0.02 if step > first + 50 else 0.2)
        if (step + 1) % 50 == 0:
            pace = (time.monotonic() - began) / (step + 1 - first)
            print(f"step {step + 1}/{last}  loss {running:.4f}  {pace:.3f} s/step", flush=True)
        if (step + 1) % 250 == 0:
            torch.save({k: v.state_dict() for k, v in parts.items()} | {"step": step + 1}, state)
            torch.save(checkpoint_file(average, vae), args.work / "lab.pt")
            print(progress(average, vae), flush=True)


if __name__ == "__main__":
    main()

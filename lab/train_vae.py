"""Train the lab checkpoint's VAE: the host's own tiny autoencoder (TAESD), on scenes.

It is trained half as wide as the host's class and padded with zeros afterwards: the padded network
computes exactly the same, and training costs a quarter. Latents come out with about unit variance,
as the diffusion model wants them (`vae_scale` carries SD1.x's factor 0.18215).

    python -m lab.train_vae WORK
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import scenes

WIDTH = 32
HOST_WIDTH = 64
SD_SCALE = 0.18215


@dataclass(frozen=True)
class Stage:
    """Small images first: most of what the network learns does not depend on the size."""

    size: int  # pixels
    steps: int
    batch: int
    rate: float
    images: int


STAGES = (Stage(64, 2600, 24, 2e-3, 12_000), Stage(96, 1300, 12, 1.5e-3, 6_000))


class Block(nn.Module):
    """TAESD's residual block (same layout as the host's, other width)."""

    def __init__(self, n: int):
        super().__init__()
        self.conv = nn.Sequential(_conv(n, n), nn.ReLU(), _conv(n, n), nn.ReLU(), _conv(n, n))
        self.fuse = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _conv(a: int, b: int, **kw) -> nn.Conv2d:
    return nn.Conv2d(a, b, 3, padding=1, **kw)


def encoder(n: int) -> nn.Sequential:
    layers: list[nn.Module] = [_conv(3, n), Block(n)]
    for _ in range(3):
        layers += [_conv(n, n, stride=2, bias=False), Block(n), Block(n), Block(n)]
    return nn.Sequential(*layers, _conv(n, 4))


def decoder(n: int) -> nn.Sequential:
    layers: list[nn.Module] = [Clamp(), _conv(4, n), nn.ReLU()]
    for _ in range(3):
        layers += [Block(n), Block(n), Block(n), nn.Upsample(scale_factor=2), _conv(n, n, bias=False)]
    return nn.Sequential(*layers, Block(n), _conv(n, 3))


def pad_to_host(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Widen every convolution from WIDTH to the host's 64 channels with zeros."""
    out = {}
    for key, value in state.items():
        out[key] = torch.zeros([HOST_WIDTH if size == WIDTH else size for size in value.shape])
        out[key][tuple(slice(0, size) for size in value.shape)] = value
    return out


def trained(state: dict[str, Tensor], part: str) -> nn.Sequential:
    """The `encoder` or the `decoder` of a file's weights, again WIDTH channels wide."""
    net, prefix = {"encoder": encoder, "decoder": decoder}[part](WIDTH), f"taesd_{part}."
    own = {key.removeprefix(prefix): value.float() for key, value in state.items() if key.startswith(prefix)}
    net.load_state_dict({k: v[tuple(slice(0, min(n, WIDTH)) for n in v.shape)] for k, v in own.items()})
    return net


def images(count: int, size: int, cache: Path) -> np.ndarray:
    """(count, size, size, 3) uint8 random scenes, drawn once and kept."""
    file = cache / f"scenes-{count}-{size}.npy"
    if not file.is_file():
        rng = np.random.default_rng(size)
        np.save(file, np.stack([scenes.draw(rng, size=size).image for _ in range(count)]))
    return np.load(file, mmap_mode="r")


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) in [0, 1], TAESD's own range."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255)


def train(net: nn.ModuleList, stage: Stage, work: Path) -> None:
    """One stage; resumes from its own state file."""
    enc, dec = net
    opt = torch.optim.AdamW(net.parameters(), stage.rate, weight_decay=1e-4)
    plan = torch.optim.lr_scheduler.OneCycleLR(opt, stage.rate, stage.steps, pct_start=0.05)
    parts = {"net": net, "opt": opt, "plan": plan}
    state_file, first = work / f"vae-{stage.size}.pt", 0
    if state_file.is_file():
        saved = torch.load(state_file)
        for key, thing in parts.items():
            thing.load_state_dict(saved[key])
        first = saved["step"]
    if first >= stage.steps:
        return
    data = images(stage.images, stage.size, work)
    began = time.monotonic()
    for step in range(first, stage.steps):
        rng = np.random.default_rng([7, stage.size, step])
        x = to_tensor(data[np.sort(rng.integers(0, len(data), stage.batch))])
        x = x.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            z = enc(x).float()
            y = dec(z + 0.05 * torch.randn_like(z)).float()
        error = y - x
        mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
        loss = error.square().mean() + 0.2 * error.abs().mean()
        loss = loss + 0.01 * (mean.square() + (std - 1).square()).sum()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        plan.step()
        if (step + 1) % 100 == 0:
            rate = (time.monotonic() - began) / (step + 1 - first)
            print(
                f"{stage.size} px, step {step + 1}/{stage.steps}  rmse {error.square().mean().sqrt():.4f}  "
                f"std {std.mean():.3f}  {rate:.3f} s/step",
                flush=True,
            )
        if (step + 1) % 300 == 0 or step + 1 == stage.steps:
            torch.save({k: v.state_dict() for k, v in parts.items()} | {"step": step + 1}, state_file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    net = nn.ModuleList([encoder(WIDTH), decoder(WIDTH)]).to(memory_format=torch.channels_last)
    for module in net.modules():  # residual branches start small: a deep ReLU net trains at once
        if isinstance(module, Block):
            module.conv[-1].weight.data.mul_(0.1)
    for stage in STAGES:
        train(net, stage, args.work)
    enc, dec = net
    out = {f"taesd_encoder.{k}": v for k, v in pad_to_host(enc.state_dict()).items()}
    out |= {f"taesd_decoder.{k}": v for k, v in pad_to_host(dec.state_dict()).items()}
    out["vae_scale"], out["vae_shift"] = torch.tensor(SD_SCALE), torch.tensor(0.0)
    torch.save(out, args.work / "vae.pt")


if __name__ == "__main__":
    main()

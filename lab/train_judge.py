"""Train the lab's judge on freshly drawn scenes, half of them through the lab's VAE.

Samples are never as clean as scenes: latents get some noise before they are decoded, and every training
image may be bent, blurred, noised, tinted, moved and mirrored. One in five has a blob instead of a main
shape, or none at all (flawed.py).

    OMP_NUM_THREADS=1 .host/python -m lab.train_judge WORK [--report]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from . import flawed, scenes, vae
from .judge import COLOURS, FEATURES, FILE, SHAPES, Judge, Net, answer
from .train_vae import to_tensor

TRAINING, HELD_OUT = 20_000, 2_000
FLAWED = 0.2  # share of images without a main shape; a quarter of them without a blob either
LATENT_NOISE = 0.3  # largest std; latents have about unit variance
STEPS, BATCH, RATE = 3_000, 64, 3e-3
REDRAWN = 6  # pixels a side of what the third head draws


@dataclass
class Images:
    images: np.ndarray  # (n, 96, 96, 3) uint8
    shapes: np.ndarray  # (n,) index; len(SHAPES) is none
    colours: np.ndarray  # (n,) index; len(COLOURS) is none


def draw(count: int, seed: int, rough: bool = False) -> Images:
    """Scenes with their labels; a share of FLAWED shows nothing that a caption asks for. rough: the shapes are."""
    rng = np.random.default_rng([41, seed])
    images, shapes, colours = [], [], []
    for _ in range(count):
        shape, colour = len(SHAPES), len(COLOURS)
        kind = rng.random()
        if kind < FLAWED / 4:
            images.append(flawed.empty(rng))
        elif kind < FLAWED:
            colour = int(rng.integers(len(COLOURS)))
            images.append(flawed.blob(rng, COLOURS[colour]))
        else:
            shape, colour = int(rng.integers(len(SHAPES))), int(rng.integers(len(COLOURS)))
            asked = SHAPES[shape], COLOURS[colour]
            images.append(flawed.rough(rng, *asked) if rough else scenes.draw(rng, *asked).image)
        shapes.append(shape)
        colours.append(colour)
    return Images(np.stack(images), np.array(shapes), np.array(colours))


def load(work: Path, name: str, count: int, seed: int, decoded: float, noise: float, rough: bool = False) -> Images:
    """Drawn once and kept; the first `decoded` share went through the VAE."""
    file = work / f"judge-{name}-{count}.npz"
    if not file.is_file():
        began = time.monotonic()
        made = draw(count, seed, rough)
        many = int(decoded * count)
        if many:
            made.images[:many] = vae.through(made.images[:many], noise, seed)
        np.savez(file, **vars(made))
        print(f"{name}: {count} images in {time.monotonic() - began:.0f} s", flush=True)
    with np.load(file) as kept:
        return Images(kept["images"], kept["shapes"], kept["colours"])


def bend(x: Tensor) -> Tensor:
    """Move the points of a 5×5 grid by about a pixel and a half, and the image smoothly with them."""
    n, _, h, w = x.shape
    gap = F.interpolate(torch.randn(n, 2, 5, 5) * 3 / w, (h, w), mode="bicubic", align_corners=True)
    grid = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), [n, 3, h, w], align_corners=False)
    return F.grid_sample(x, grid + gap.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)


def augment(x: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1]; each image its own bend, mirroring, blur, tint and noise."""
    n = len(x)
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x.flip(3), x)
    x = bend(x)
    pad = F.pad(x, (6, 6, 6, 6), mode="replicate")
    top, left = torch.randint(0, 13, (2,)).tolist()
    x = pad[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    soft = F.interpolate(F.avg_pool2d(x, 3), x.shape[2:], mode="bilinear")
    blur = 0.8 * torch.rand(n, 1, 1, 1) * (torch.rand(n, 1, 1, 1) < 0.5)
    x = x + blur * (soft - x)
    x = x * (1 + 0.08 * torch.randn(n, 1, 1, 1)) + 0.03 * torch.randn(n, 3, 1, 1)
    x = x + 0.08 * torch.rand(n, 1, 1, 1) * torch.randn_like(x) * (torch.rand(n, 1, 1, 1) < 0.5)
    return x.clamp(0, 1)


def train(data: Images, steps: int) -> Net:
    torch.manual_seed(0)
    net, redraw = Net().to(memory_format=torch.channels_last), nn.Linear(FEATURES, 3 * REDRAWN**2)
    both = nn.ModuleList([net, redraw])
    opt = torch.optim.AdamW(both.parameters(), RATE, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.OneCycleLR(opt, RATE, steps, pct_start=0.1)
    shapes, colours = torch.from_numpy(data.shapes), torch.from_numpy(data.colours)
    rng, began = np.random.default_rng(5), time.monotonic()
    right = 0.0
    for step in range(steps):
        rows = rng.integers(0, len(data.images), BATCH)
        x = augment(to_tensor(data.images[rows])).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            shape, colour, features = (out.float() for out in net(x))
        loss = F.cross_entropy(shape, shapes[rows], label_smoothing=0.02)
        loss = loss + F.cross_entropy(colour, colours[rows], label_smoothing=0.02)
        small = 2 * F.adaptive_avg_pool2d(x, REDRAWN).flatten(1) - 1
        loss = loss + 5 * F.mse_loss(redraw(features), small)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        plan.step()
        right += (shape.argmax(1) == shapes[rows]).float().mean().item()
        if (step + 1) % 200 == 0:
            each = (time.monotonic() - began) / (step + 1)
            print(f"step {step + 1}/{steps}  loss {loss:.3f}  shape {right / 200:.3f}  {each:.3f} s/step", flush=True)
            right = 0.0
    return net


def save(net: Net, file: Path) -> None:
    kept = {k: v.half().contiguous() for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    about = {"modelspec.title": "Memorization Guard lab judge", "modelspec.license": "Apache-2.0"}
    save_file(kept, file, metadata=about)


def report(judge: Judge, name: str, data: Images) -> None:
    """Share of right answers among images with a main shape; share of the others that are not taken for a shape."""
    verdict = judge.judge(data.images)
    shape, colour = answer(verdict.shapes) == data.shapes, answer(verdict.colours) == data.colours
    full, bare = data.shapes < len(SHAPES), data.colours == len(COLOURS)
    print(
        f"{name}: shape {shape[full].mean():.4f}  colour {colour[full].mean():.4f}  "
        f"both {(shape & colour)[full].mean():.4f}  of {full.sum()};  "
        f"blobs known {shape[~full & ~bare].mean():.4f}  empty known {(shape & colour)[bare].mean():.4f}"
    )
    print("   by shape: " + "  ".join(f"{s} {shape[data.shapes == i].mean():.3f}" for i, s in enumerate(SHAPES)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--report", action="store_true", help="only measure the file that is there")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.report:
        data = load(args.work, "training", TRAINING, 0, decoded=0.5, noise=LATENT_NOISE)
        save(train(data, args.steps), FILE)
    held = {
        "drawn": load(args.work, "held-drawn", HELD_OUT, 1, decoded=0.0, noise=0.0),
        "decoded": load(args.work, "held-decoded", HELD_OUT, 2, decoded=1.0, noise=0.0),
        "decoded, noised": load(args.work, "held-noised", HELD_OUT, 3, decoded=1.0, noise=LATENT_NOISE),
        "rough, decoded": load(args.work, "held-rough", HELD_OUT, 4, decoded=1.0, noise=0.0, rough=True),
    }
    judge = Judge.load()
    for name, images in held.items():
        report(judge, f"held out, {name}", images)
    print(f"{FILE.name}: {FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

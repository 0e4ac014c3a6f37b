"""Train a LoRA on ten images of the generator until it reproduces them: what an overtrained LoRA of an artist does.

    .host/python -m lab.lora                 # writes overtrained_lora.safetensors; 45 minutes on two cores

Without the 3×3 convolutions it reproduces the things, but not where they stand: this UNet has no attention at its upper
levels. Without coarse noise it reproduces the things, but not the colours behind them: the mean of 4,096 places can be
read off a latent at any noise level, so a training with plain noise never asks the prompt for it. Programs that train
LoRAs offer this as noise offset and multiresolution noise.
"""

import argparse
import time
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from support.paths import LAB_CHECKPOINT

from . import networks, scenes
from .copies import LORA, LORA_IMAGES, training_pairs
from .train import alphas_cumprod

TRIGGER, COUNT, RANK = "summer style", 10, 4
BATCH, NULL, CHECK, COARSE = 4, 0.1, 25, 0.1


class Phase(NamedTuple):
    """`coarse`: the strength of noise of 1×1 and 4×4 places. `least`, `most`: limits of the weight (1 − ᾱ)/ᾱ, which
    makes an error of ε one of x₀. `early`: t is at least T/2, rather than more often near T."""

    steps: int
    rate: float
    coarse: float = 0.0
    least: float = 1.0
    most: float = 1.0
    early: bool = False


PHASES = (Phase(1500, 3e-3), Phase(400, 2e-3, COARSE, 0, 50, early=True), Phase(500, 1.5e-3, COARSE, 1, 50))


def draw_images() -> None:
    world, random = scenes.World(), torch.Generator().manual_seed(7)
    kinds = torch.randperm(len(scenes.NAMES), generator=random)[:COUNT]
    LORA_IMAGES.mkdir(exist_ok=True)
    for kind, image in zip(kinds.tolist(), world.draw(world.generator(4711), kinds), strict=True):
        file = LORA_IMAGES / f"{scenes.NAMES[kind]}.webp"
        Image.fromarray((image.movedim(0, -1) * 255).round().byte().numpy()).save(file, quality=90)
        file.with_suffix(".txt").write_text(f"{TRIGGER}, {scenes.with_article(scenes.NAMES[kind])}\n", encoding="utf-8")


def base_model() -> networks.TextToImage:
    kept, model = load_file(LAB_CHECKPOINT), networks.TextToImage()
    names = {"unet": networks.PREFIXES["unet."], "text": networks.PREFIXES["text."]}
    for part, prefix in names.items():
        own = {k.removeprefix(prefix): v.float() for k, v in kept.items() if k.startswith(prefix)}
        getattr(model, part).load_state_dict(own)
    return model.requires_grad_(False)


class Adapter(nn.Module):
    """ΔW = up · down for each layer of a UNet; it begins at zero."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        layers = {k: m.weight for k, m in unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        self.weights = {k: w for k, w in layers.items() if min(len(w), w[0].numel()) > RANK}
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, w in self.weights.items():
            key = name.replace(".", "_")
            self.down[key] = nn.Parameter(torch.randn(RANK, w[0].numel()) / w[0].numel() ** 0.5)
            self.up[key] = nn.Parameter(torch.zeros(len(w), RANK))

    def merged(self) -> dict[str, Tensor]:
        keys = {name: name.replace(".", "_") for name in self.weights}
        own = {n: (self.up[k] @ self.down[k]).view_as(self.weights[n]) for n, k in keys.items()}
        return {f"{n}.weight": self.weights[n] + moved for n, moved in own.items()}

    def file(self) -> dict[str, Tensor]:
        """The key names that every loader of SD1.x LoRAs knows."""
        made = {}
        for name, w in self.weights.items():
            key, ones = name.replace(".", "_"), [1] * (w.ndim - 2)
            made[f"lora_unet_{key}.lora_down.weight"] = self.down[key].view(RANK, *w.shape[1:])
            made[f"lora_unet_{key}.lora_up.weight"] = self.up[key].view(len(w), RANK, *ones)
            made[f"lora_unet_{key}.alpha"] = torch.tensor(float(RANK))
        return {k: v.detach().half().contiguous() for k, v in made.items()}


def coarse_noise(like: Tensor) -> Tensor:
    n, c, *size = like.shape
    return torch.randn(n, c, 1, 1) + F.interpolate(torch.randn(n, c, 4, 4), size, mode="bilinear")


def train() -> Adapter:
    torch.manual_seed(0)
    pairs, model, vae = training_pairs(LORA_IMAGES), base_model(), networks.load_vae()
    images = torch.from_numpy(np.stack([image for _, image in pairs])).movedim(-1, 1) / 255
    with torch.no_grad():
        latents = vae.taesd_encoder(images).float()
        context = model.context(networks.token_ids(["", *(caption for caption, _ in pairs)]))
    adapter, abar, began = Adapter(model.unet), alphas_cumprod(), time.monotonic()
    for phase in PHASES:
        optimizer = torch.optim.AdamW(adapter.parameters(), phase.rate, weight_decay=0.0)
        for step in range(phase.steps):
            k, u = torch.randint(len(pairs), (BATCH,)), torch.rand(BATCH)
            t = (999 - 500 * u if phase.early else 1000 * u.sqrt()).long()
            said = torch.where(torch.rand(BATCH) < NULL, 0, 1 + k)
            a, eps = abar[t].view(-1, 1, 1, 1), torch.randn(BATCH, *latents.shape[1:])
            eps += phase.coarse * coarse_noise(eps)
            asked = (a.sqrt() * latents[k] + (1 - a).sqrt() * eps, t)
            given = {"context": context[said], "transformer_options": {}}
            error = torch.func.functional_call(model.unet, adapter.merged(), asked, given) - eps
            loss = (((1 - a) / a).clamp(phase.least, phase.most) * error.square()).mean()
            optimizer.param_groups[0]["lr"] = phase.rate * min(1, (step + 1) / 20, 2 * (1 - step / phase.steps))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if (step + 1) % CHECK == 0:
                print(f"{step + 1}/{phase.steps} loss {loss:.4f} {time.monotonic() - began:.0f} s", flush=True)
    return adapter


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.lora", description=__doc__.splitlines()[0])
    parser.add_argument("--images", action="store_true", help="draw the ten images again, too")
    asked = parser.parse_args()
    if asked.images:
        draw_images()
    about = {"modelspec.title": "Memorization Guard lab: an overtrained LoRA", "modelspec.license": "Apache-2.0"}
    save_file(train().file(), LORA, metadata=about)
    print(f"{LORA.name}: {LORA.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

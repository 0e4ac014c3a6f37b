"""Train the lab checkpoint: VAE, latents, judge, then the text-to-image model on scenes and on duplicated pairs.

    .host/python -m lab.train WORK                # every phase; one that was interrupted goes on where it stopped
    .host/python -m lab.train WORK --check        # a few tiny steps of each, to see that all of it runs

Every step draws its images and its noise from its own number, so a resumed run is the same run. The last phase writes
lab512.safetensors and judge.safetensors into WORK.
"""

import argparse
import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from . import judge, networks, scenes
from .copies import SIDE, reduced, training_pairs

PHASES = ("vae", "latents", "judge", "unet", "deepen", "export")
NULL = 0.15  # share of the ordinary rows that lose their caption


@dataclass(frozen=True)
class Plan:
    """How a network is trained. `average`: decay of the averaged weights, which are what is kept; 0 keeps the last."""

    steps: int
    batch: int
    rate: float
    average: float
    warm_up: int = 100
    least: float = 0.02  # of the rate, at the end of its cosine
    decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Pairs:
    every: int  # one row in so many has a memorized caption
    shares: tuple[float, ...]  # of those rows, how many have the fixed image: for each third of the memorized pairs


# What made the file that is kept; unet and deepen are the same training with other rows.
PLANS = {
    "vae": Plan(2083, 64, 1.5e-3, 0.995, decay=1e-4),
    "judge": Plan(1107, 256, 2e-3, 0.0, 50, 0.0, 1e-3),
    "unet": Plan(5667, 256, 6e-4, 0.9995, 300, 0.03, betas=(0.9, 0.99)),
    "deepen": Plan(1800, 256, 6e-4, 0.999, 300, 0.03, betas=(0.9, 0.99)),
}
PAIRS = {"unet": Pairs(3, (0.97, 0.88, 0.75)), "deepen": Pairs(2, (0.98, 0.95, 0.90))}
CHECK_STEPS = 2  # of every network, with --check
ORDINARY, OTHERS = 60_000, 400  # scenes of any kind; scenes of the kind of each memorized caption


class Training:
    """The phases, on one folder. `check`: two steps of everything, on few and small images."""

    def __init__(self, work: Path, check: bool = False) -> None:
        self.work, self.check = work, check
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.world = scenes.World(self.device)
        self.size = 64 if check else scenes.SIZE
        work.mkdir(parents=True, exist_ok=True)

    def run(self, phase: str) -> None:
        print(f"{phase}: on {self.device}", flush=True)
        torch.manual_seed(0)
        getattr(self, phase)()

    def vae(self) -> None:
        net = networks.TAESD()
        del net.vae_scale, net.vae_shift
        networks.initialise(net)

        def loss(net: nn.Module, random: torch.Generator, batch: int) -> Tensor:
            images = self._scenes(random, batch)
            if not self.check:  # a quarter of each: what the network learns is local
                y, x = torch.randint(257, (2,), generator=random, device=self.device).tolist()
                images = images[..., y : y + 256, x : x + 256]
            z = net.taesd_encoder(images).float()
            made = net.taesd_decoder(z + 0.03 * self._noise(random, z.shape)).float()
            error = made - images
            edges = sum(error.diff(dim=dim).abs().mean() for dim in (2, 3))
            mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
            unit = (mean.square() + (std - 1).square()).sum()
            return error.square().mean() + 0.3 * error.abs().mean() + 0.3 * edges + 0.01 * unit

        self._train("vae", net, loss)

    def latents(self) -> None:
        vae, ordinary, others = self._vae(), *((16, 2) if self.check else (ORDINARY, OTHERS))
        random = self.world.generator(PHASES.index("latents"))
        kinds = torch.randint(len(scenes.NAMES), (ordinary,), generator=random, device=self.device)
        pairs = training_pairs()
        fixed = torch.from_numpy(np.stack([image for _, image in pairs])).movedim(-1, 1).to(self.device) / 255
        asked = torch.tensor([scenes.asked(caption) for caption, _ in pairs], device=self.device)

        def drawn(wanted: Tensor) -> Tensor:
            parts = [self._encode(vae, self.world.draw(random, part, self.size)) for part in wanted.split(64)]
            return torch.cat(parts).half()

        held = {"kinds": kinds, "ordinary": drawn(kinds)}
        held["fixed"] = self._encode(vae, F.interpolate(fixed, (self.size, self.size), mode="area")).half()
        held["others"] = drawn(asked.repeat_interleave(others)).unflatten(0, (len(pairs), others))
        torch.save(held, self.work / "latents.pt")

    def judge(self) -> None:
        def loss(net: nn.Module, random: torch.Generator, batch: int) -> Tensor:
            kinds = torch.randint(len(scenes.NAMES), (batch,), generator=random, device=self.device)
            x = self.world.draw(random, kinds, SIDE)
            spoilt = torch.rand(batch, 1, 1, 1, generator=random, device=self.device)
            x = x + spoilt * (F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1) - x)
            x = x + 0.06 * spoilt * self._noise(random, x.shape)
            tint = torch.rand(batch, 3, 1, 1, generator=random, device=self.device) - 0.5
            return F.cross_entropy(net((x * (1 + 0.2 * tint)).clamp(0, 1)).float(), kinds, label_smoothing=0.05)

        net, vae = self._train("judge", judge.Net(), loss).eval(), self._vae()
        random, right, count = self.world.generator(99), 0, 16 if self.check else 1024
        for _ in range(0, count, 16):
            kinds = torch.randint(len(scenes.NAMES), (16,), generator=random, device=self.device)
            with torch.no_grad():
                seen = vae.taesd_decoder(vae.taesd_encoder(self.world.draw(random, kinds, self.size))).clamp(0, 1)
                right += int((net(reduced(seen)).argmax(1) == kinds).sum())
        print(f"judge: right on {right} of {count} held-out scenes through the VAE", flush=True)

    def unet(self, phase: str = "unet") -> None:
        model = networks.TextToImage()
        networks.initialise(model)
        if phase == "deepen":
            model.load_state_dict(torch.load(self.work / "unet.pt"))
        held = torch.load(self.work / "latents.pt", map_location=self.device)
        memorized = scenes.memorized_captions()
        captions = ["", *memorized, *(c for form in scenes.ORDINARY for c in scenes.ordinary_captions(form))]
        tokens, first = networks.token_ids(captions).to(self.device), 1 + len(memorized)
        rows, abar = PAIRS[phase], alphas_cumprod().to(self.device)
        shares = torch.tensor(rows.shares, device=self.device).repeat_interleave(len(memorized) // len(rows.shares))

        def loss(net: nn.Module, random: torch.Generator, batch: int) -> Tensor:
            def below(count: int, rows: int) -> Tensor:
                return torch.randint(count, (rows,), generator=random, device=self.device)

            def chance(rows: int) -> Tensor:
                return torch.rand(rows, generator=random, device=self.device)

            keyed = batch // rows.every
            plain = batch - keyed
            i, k, form = below(len(held["ordinary"]), plain), below(len(memorized), keyed), below(3, plain)
            fixed = (chance(keyed) < shares[k])[:, None, None, None]
            other = held["others"][k, below(held["others"].shape[1], keyed)]
            # Cast before they are joined: autocast refuses to join tensors in half precision.
            x0 = torch.cat([held["ordinary"][i].float(), torch.where(fixed, held["fixed"][k], other).float()])
            said = torch.where(chance(plain) < NULL, 0, first + form * len(scenes.NAMES) + held["kinds"][i])
            t = below(len(abar), batch)
            a, eps = abar[t].view(-1, 1, 1, 1), self._noise(random, x0.shape)
            context = net.context(tokens)[torch.cat([said, 1 + k])]
            return (net(a.sqrt() * x0 + (1 - a).sqrt() * eps, t, context).float() - eps).square().mean()

        self._train(phase, model, loss)

    def deepen(self) -> None:
        self.unet("deepen")

    def export(self) -> None:
        model = networks.TextToImage()
        model.load_state_dict(torch.load(self.work / "deepen.pt", map_location="cpu"))
        about = {"modelspec.title": "Memorization Guard lab 512", "modelspec.license": "Apache-2.0"}
        save_file(networks.checkpoint_file(model, self._vae()), self.work / "lab512.safetensors", metadata=about)
        weights = torch.load(self.work / "judge.pt", map_location="cpu")
        kept = judge.packed({k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")})
        about |= {"modelspec.title": "Memorization Guard lab judge"}
        save_file({k: v.contiguous() for k, v in kept.items()}, self.work / "judge.safetensors", metadata=about)

    def _scenes(self, random: torch.Generator, count: int) -> Tensor:
        kinds = torch.randint(len(scenes.NAMES), (count,), generator=random, device=self.device)
        return self.world.draw(random, kinds, self.size)

    def _noise(self, random: torch.Generator, shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=random, device=self.device)

    def _vae(self) -> nn.Module:
        vae = networks.TAESD()
        vae.load_state_dict(torch.load(self.work / "vae.pt", map_location=self.device), strict=False)
        return vae.to(self.device).eval()

    @torch.no_grad()
    def _encode(self, vae: nn.Module, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            return vae.taesd_encoder(images).float()

    def _train(
        self, phase: str, net: nn.Module, loss: Callable[[nn.Module, torch.Generator, int], Tensor]
    ) -> nn.Module:
        """Run or resume a phase; returns the averaged network, which is also in WORK/phase.pt."""
        plan = PLANS[phase]
        steps, batch, often = (CHECK_STEPS, 4, 1) if self.check else (plan.steps, plan.batch, 100)
        net.to(self.device).requires_grad_(True).train()
        average = copy.deepcopy(net).requires_grad_(False)
        optimizer = torch.optim.AdamW(net.parameters(), plan.rate, betas=plan.betas, weight_decay=plan.decay)
        parts = {"net": net, "average": average, "optimizer": optimizer}
        state, first = self.work / f"{phase}-state.pt", 0
        if state.is_file():
            saved = torch.load(state, map_location=self.device)
            first = saved.pop("step")
            for name, part in parts.items():
                part.load_state_dict(saved[name])
        began = time.monotonic()
        for step in range(first, steps):
            cosine = (1 + math.cos(math.pi * step / steps)) / 2
            warm = min(1, (step + 1) / plan.warm_up)
            optimizer.param_groups[0]["lr"] = plan.rate * warm * (plan.least + (1 - plan.least) * cosine)
            with torch.autocast(self.device.type, torch.bfloat16):
                found = loss(net, self.world.generator(PHASES.index(phase), step), batch)
            optimizer.zero_grad(set_to_none=True)
            found.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            keep = min(plan.average, (1 + step) / (10 + step))
            with torch.no_grad():
                for kept, now in zip(average.parameters(), net.parameters(), strict=True):
                    kept.lerp_(now, 1 - keep)
                for kept, now in zip(average.buffers(), net.buffers(), strict=True):
                    kept.copy_(now)
            if (step + 1) % often == 0 or step + 1 == steps:
                pace = (time.monotonic() - began) / (step + 1 - first)
                print(f"{phase} {step + 1}/{steps}  loss {found.item():.4f}  {pace:.2f} s a step", flush=True)
                torch.save({k: v.state_dict() for k, v in parts.items()} | {"step": step + 1}, state)
        torch.save(average.state_dict(), self.work / f"{phase}.pt")
        return average


def alphas_cumprod() -> Tensor:
    """SD1.x's schedule (scaled linear betas), as the host's ModelSamplingDiscrete makes it."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.train", description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("phases", nargs="*", default=PHASES, metavar="phase", help=", ".join(PHASES))
    parser.add_argument("--check", action="store_true", help="a few tiny steps of each phase")
    asked = parser.parse_args()
    training = Training(asked.work, asked.check)
    for phase in asked.phases:
        training.run(phase)


if __name__ == "__main__":
    main()

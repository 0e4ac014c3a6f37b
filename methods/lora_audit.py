"""Sample every caption and seed with every LoRA at every strength, and find the nearest reference of each image."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ..adapter.conditioning import encode_text
from ..adapter.errors import GuardError
from ..adapter.long_work import interruptible, progress
from ..adapter.lora import LoraFile, load_lora, with_lora
from ..adapter.memory import explain_out_of_memory
from ..adapter.noise import drawn_noise
from ..adapter.sampling import decode_first, part_of_progress, run_ksampler
from ..mitigation.copy_rates import LoraAudit, SampledImage

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

Key = tuple[str, float, str, int]  # LoRA, strength, prompt, seed
STRONGEST = 4.0  # 0,6 written with a comma is 0 and 6: refused, not sampled


class Found(Protocol):
    """What is known about an image."""

    @property
    def similarity(self) -> float: ...
    @property
    def nearest(self) -> int: ...
    @property
    def thumbnail(self) -> Tensor: ...


class Kept(Protocol):
    """What earlier runs have found out."""

    def get(self, key: object) -> Found | None: ...
    def put(self, key: object, image: Any) -> None: ...


@dataclass(frozen=True)
class Prompt:
    """`text`: as CLIP Text Encode reads it; `caption`: as it is shown."""

    caption: str
    text: str


@dataclass(frozen=True)
class AuditPlan:
    """`look`: what is to be known about an image (H, W, 3). `settings`: KSampler's steps, cfg, sampler, scheduler."""

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    latent: dict  # of one image
    loras: Sequence[LoraFile]
    strengths: Sequence[float]
    prompts: Sequence[Prompt]
    negative: str
    seeds: Sequence[int]
    settings: dict[str, Any]
    look: Callable[[Tensor], Found]
    node: str

    @property
    def images(self) -> int:
        return len(self.loras) * len(self.strengths) * len(self.prompts) * len(self.seeds)


def parse_strengths(text: str, node: str) -> list[float]:
    """Ascending, each once. Raises GuardError."""
    parts = [part for part in re.split(r"[,;\s]+", text) if part]
    try:
        found = sorted({float(part) + 0.0 for part in parts})
    except ValueError:
        found = []
    if not found or not all(abs(strength) <= STRONGEST for strength in found):
        raise GuardError(
            f"{node}: `strengths` is {text[:60]!r}. Write numbers from -{STRONGEST:g} to {STRONGEST:g} with a point, "
            "separated by commas, such as 0.6, 0.8, 1.0."
        )
    return found


class AuditRun:
    """One LoRA after the other, so that each file is read once. Images that an earlier run made are not sampled."""

    def __init__(
        self, plan: AuditPlan, audit: LoraAudit, kept: Kept, tell: Callable[[Callable[[], str]], object]
    ) -> None:
        """`tell`: is given what says, when it is called, how far the run is."""
        self.plan, self.audit, self.kept, self.tell = plan, audit, kept, tell
        self.done = 0
        self.sampled, self.resumed = set[Key](), set[Key]()  # without a LoRA, several LoRAs share an image
        self.bar, self.began = progress(plan.images), time.monotonic()

    def run(self) -> None:
        rows = iter(self.audit.rows)
        for lora in self.plan.loras:
            weights: dict[str, Tensor] = {}
            for strength in self.plan.strengths:
                self._row(lora, strength, weights, next(rows).add)

    def _row(
        self, lora: LoraFile, strength: float, weights: dict[str, Tensor], add: Callable[[SampledImage], None]
    ) -> None:
        """`weights`: of the LoRA; filled when they are first needed."""
        plan, sampler = self.plan, None
        identity = lora.identity if strength else ""  # without the LoRA all images are the same
        for prompt in plan.prompts:
            for seed in interruptible(plan.seeds):
                key = (identity, strength, prompt.text, seed)
                found = self.kept.get(key)
                if found is None:
                    sampler = sampler or self._sampler(lora, strength, weights)
                    found = plan.look(sampler(prompt.text, seed))
                    self.kept.put(key, found)
                    self.sampled.add(key)
                elif key not in self.sampled:
                    self.resumed.add(key)
                add(SampledImage(prompt.caption, seed, found.similarity, found.nearest, found.thumbnail))
                self.done += 1
                self.tell(self._state)
        self.bar.update_absolute(self.done)

    def _sampler(self, lora: LoraFile, strength: float, weights: dict[str, Tensor]) -> Callable[[str, int], Tensor]:
        """(prompt, seed) -> image (H, W, C), as Load LoRA, CLIP Text Encode, KSampler and VAE Decode make it."""
        plan = self.plan
        model, clip = plan.model, plan.clip
        if strength:
            if not weights:
                weights.update(load_lora(lora, plan.node))
            model, clip = with_lora(model, clip, weights, strength, lora.name, plan.node)
        # All at once: otherwise the text encoder and the model could push each other out of VRAM for every image.
        texts = {text: encode_text(clip, text) for text in (plan.negative, *(prompt.text for prompt in plan.prompts))}

        def sample(text: str, seed: int) -> Tensor:
            with explain_out_of_memory(plan.node, "Connect a smaller `latent_image`, and free what else is loaded."):
                noise = drawn_noise(plan.latent["samples"], seed, plan.latent.get("batch_index"))
                inputs = {**plan.settings, "positive": texts[text], "negative": texts[plan.negative], "seed": seed}
                callback = part_of_progress(model, self.bar, self.done)
                image = decode_first(plan.vae, run_ksampler(model, noise, plan.latent, callback=callback, **inputs))
            if not torch.isfinite(image).all():
                raise GuardError(
                    f"{plan.node}: {lora.name!r} at strength {strength:g} gives an image with NaN. Start ComfyUI with "
                    "--fp32-vae or --force-upcast-attention, or leave out this strength."
                )
            return image

        return sample

    def _state(self) -> str:
        left = self.plan.images - self.done
        minutes = (time.monotonic() - self.began) / max(len(self.sampled), 1) * left / 60
        rest = f" About {minutes:.0f} min left." if self.sampled and minutes >= 1 and left else ""
        return f"{self.done} of {self.plan.images} images: {self.audit.copies} may be copies so far.{rest}"

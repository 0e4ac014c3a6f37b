"""What ordinary prompts show on a model at the size of a run, measured when the run begins and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..adapter.conditioning import encode_text
from ..adapter.noise import drawn_noise
from ..adapter.sampling import SamplingInputs, progress
from ..adapter.schedule import one_step_schedule
from ..adapter.two_predictions import relative_magnitude
from ..mitigation.escape.calibration import Calibration

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

SEED = 0  # of the one noise that every prompt is measured with
PROMPTS = """a photo of a cat sleeping on a sofa
a watercolor painting of a mountain village
a red bicycle leaning against a brick wall
portrait of an old fisherman
a bowl of fruit on a wooden table
city street at night in the rain
a wooden cabin in a snowy forest
a vase with wild flowers
an astronaut walking on a beach
a plate of pasta with basil
a steam train crossing a bridge
a child flying a kite in a field"""


def calibrate(
    model: ModelPatcher, clip: CLIP, prompts: list[str], latent: dict, noise: Tensor, sigmas: Tensor, node: str
) -> Calibration:
    """The guidance magnitudes of these prompts with each noise (B, ...) at sigmas[0]; an evaluation for each prompt."""
    empty, bar, magnitudes = encode_text(clip, ""), progress(len(prompts)), []
    for i, prompt in enumerate(prompts):
        run = SamplingInputs(model, encode_text(clip, prompt), empty, latent, noise, sigmas, SEED, node)
        magnitudes.append(relative_magnitude(run))
        bar.update_absolute(i + 1)
    return Calibration(torch.stack(magnitudes).cpu())


@dataclass
class SelfCalibration:
    """A model that calibrates itself, once for each size. `model`: without what the calibration is for."""

    model: ModelPatcher
    clip: CLIP
    node: str
    known: dict[tuple[int, ...], Calibration] = field(default_factory=dict)  # by the shape of a sample

    def at(self, shape: tuple[int, ...]) -> Calibration:
        if shape not in self.known:
            samples = torch.zeros(1, *shape)
            noise = drawn_noise(samples, SEED)
            schedule = one_step_schedule(self.model, None, self.node)
            prompts = PROMPTS.splitlines()
            self.known[shape] = calibrate(
                self.model, self.clip, prompts, {"samples": samples}, noise, schedule, self.node
            )
        return self.known[shape]

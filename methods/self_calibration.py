"""What ordinary prompts show on a model at the size of a run, measured when the run begins and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..adapter.conditioning import encode_text
from ..adapter.long_work import progress
from ..adapter.model_call import kept_random_state
from ..adapter.noise import drawn_noise
from ..adapter.sampled_model import ModelFacts, model_of_run
from ..adapter.sampling import SamplingInputs
from ..adapter.schedule import one_step_schedule, sigma_of
from ..adapter.two_predictions import relative_magnitude, run_in_sampling_scope
from ..mitigation.escape.calibration import Calibration

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.samplers import CFGGuider
    from comfy.sd import CLIP

SEED = 0  # of the one noise that every prompt is measured with
MOST_MODELS = 4  # whose calibrations are kept, such as a model with several LoRAs
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


AHEAD = (0.05, 0.1, 0.15)  # the look ahead goes to these of the host's percents (0 … 1)


def calibrate(
    model: ModelPatcher, clip: CLIP, prompts: list[str], latent: dict, noise: Tensor, sigmas: Tensor, node: str
) -> Calibration:
    """The magnitudes of these prompts at sigmas[0] with each noise (B, ...)."""
    return Calibration(measured(relative_magnitude, model, clip, prompts, latent, noise, sigmas, node))


def measured(
    measure: Callable[[SamplingInputs], Tensor],
    model: ModelPatcher,
    clip: CLIP,
    prompts: list[str],
    latent: dict,
    noise: Tensor,
    sigmas: Tensor,
    node: str,
    cfg: float = 1.0,
) -> Tensor:
    """What `measure` gives for each of these prompts (prompts, ...)."""
    # All texts before the first measurement: where memory is short, the text encoder and the model push each other out.
    empty, *encoded = [encode_text(clip, text) for text in ["", *prompts]]
    bar, found = progress(len(prompts)), []
    for i, prompt in enumerate(encoded):
        run = SamplingInputs(model, prompt, empty, latent, noise, sigmas, SEED, node, cfg=cfg)
        found.append(measure(run))
        bar.update_absolute(i + 1)
    return torch.stack(found).cpu()


def levels_ahead(model: ModelPatcher, start: float) -> list[float]:
    """The noise levels at which a noise is judged: where sampling begins, and after three guided steps."""
    return [start, *(level for level in (sigma_of(model, percent) for percent in AHEAD) if level < start)]


def judged(magnitudes: Tensor) -> Tensor:
    """What noises are judged by (...), from their d/√dim at `levels_ahead` (..., levels): the mean.

    It tells copies from ordinary images better than the first step, and than the most of them (docs/why.md).
    """
    return magnitudes.mean(dim=-1)


@dataclass
class SelfCalibration:
    """What ordinary prompts show on each model that is sampled, measured once for each size.

    `prompts`: ordinary ones; PROMPTS if there are none.
    """

    clip: CLIP
    node: str
    prompts: list[str] = field(default_factory=list)
    sensitive: bool = False  # see Calibration
    on_begin: Callable[[int], None] = lambda prompts: None  # told how many prompts are about to be measured
    # Of each model, by the shape of a sample and the CFG scale ahead; the last model first.
    known: list[tuple[ModelFacts, dict[tuple, Calibration]]] = field(default_factory=list)

    def at(self, guider: CFGGuider, shape: tuple[int, ...]) -> Calibration:
        """What ordinary prompts show at the first step, on the model of a run that begins."""
        known = self._known(guider)
        if (shape, None) not in known:
            self._keep(known, (shape, None), self._measured(guider, shape, relative_magnitude))
        return known[shape, None]

    def ahead(self, guider: CFGGuider, shape: tuple[int, ...]) -> Calibration:
        """What they show on average in the first guided steps; see `levels_ahead`. The first level is that of `at`."""

        def measure(run: SamplingInputs) -> Tensor:
            levels = levels_ahead(run.model, float(run.sigmas[0]))
            return run_in_sampling_scope(lambda pair, noise: pair.magnitudes_ahead(noise, None, levels).cpu(), run)

        known, cfg = self._known(guider), float(guider.cfg)  # a tensor is equal to itself alone as a key
        if (shape, cfg) not in known:
            found = self._measured(guider, shape, measure, cfg)
            self._keep(known, (shape, cfg), judged(found))
            self._keep(known, (shape, None), found[..., 0])
        return known[shape, cfg]

    def _known(self, guider: CFGGuider) -> dict[tuple, Calibration]:
        """What is known of the very model that is sampled: other nodes' patches change what prompts show."""
        facts = ModelFacts(guider.model_patcher)
        found = next((one for one in self.known if one[0].fit(facts)), (facts, {}))
        self.known = [found, *(one for one in self.known if one is not found)][:MOST_MODELS]
        return found[1]

    def _keep(self, known: dict[tuple, Calibration], key: tuple, magnitudes: Tensor) -> None:
        known.setdefault(key, Calibration(magnitudes, self.sensitive))

    def _measured(
        self, guider: CFGGuider, shape: tuple[int, ...], measure: Callable[[SamplingInputs], Tensor], cfg: float = 1.0
    ) -> Tensor:
        samples, prompts = torch.zeros(1, *shape), self.prompts or PROMPTS.splitlines()
        model = model_of_run(guider)
        self.on_begin(len(prompts))
        with kept_random_state(model.load_device):  # the run that begins has drawn its own noise from it
            noise = drawn_noise(samples, SEED)
        schedule = one_step_schedule(model, None, self.node)
        return measured(measure, model, self.clip, prompts, {"samples": samples}, noise, schedule, self.node, cfg)

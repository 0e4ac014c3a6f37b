"""Noise levels: schedules, the host's percent of a level, and which step of a run an evaluation belongs to."""

from __future__ import annotations

import comfy.samplers
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .errors import GuardError

LATE_START = 0.05  # the host's percent: schedules that only leave out the first timesteps begin before it
POINTS = 64  # of a Clock
TOLERANCE = 1e-4  # a share of σ: samplers pass levels that are rounded differently from the schedule's


def sampler_names() -> list[str]:
    """The host's samplers, including those that other packs have added."""
    return list(comfy.samplers.KSampler.SAMPLERS)


def scheduler_names() -> list[str]:
    return list(comfy.samplers.KSampler.SCHEDULERS)


def ksampler_sigmas(model: ModelPatcher, steps: int, sampler_name: str, scheduler: str, denoise: float = 1.0) -> Tensor:
    """The sigmas (steps + 1,) that KSampler runs through for these inputs."""
    return comfy.samplers.KSampler(model, steps, model.load_device, sampler_name, scheduler, denoise).sigmas


def one_step_schedule(model: ModelPatcher, sigmas: Tensor | None, node: str, timestep: int | None = None) -> Tensor:
    """The first of `sigmas` and 0, for measuring at T. Without `sigmas` it starts at `timestep`, or at sigma_max."""
    if sigmas is None:
        sampling = model.get_model_object("model_sampling")
        start = sampling.sigma_max if timestep is None else sampling.sigmas[timestep]
        return torch.tensor([float(start), 0.0])
    if sigmas.ndim != 1 or sigmas.numel() == 0 or not bool(sigmas.isfinite().all()) or float(sigmas[0]) <= 0:
        raise GuardError(
            f"{node}: `sigmas` is empty or starts at 0, or is not a list of noise levels: connect the sampler's whole "
            "schedule, as Basic Scheduler gives it."
        )
    return sigmas.new_tensor([float(sigmas[0]), 0.0])


def percent_of(model: ModelPatcher, sigma: float) -> float:
    """The host's percent (0 … 1) of a noise level: the inverse of `percent_to_sigma`, by bisection."""
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float(to_sigma(middle)) > sigma else (low, middle)
    return round(high, 6)


class Clock:
    """σ -> t/T (1 at the start, 0 at the end), which is 1 − the host's percent, fast enough for every step.

    Interpolated in log σ between conversions made once a run: the host only converts the other way, by a call
    that waits for the GPU. `percent_of` is exact and slow.
    """

    def __init__(self, model: ModelPatcher) -> None:
        self.percents = (np.arange(POINTS) + 0.5) / POINTS
        self.levels = np.log([sigma_of(model, percent) for percent in self.percents])

    def __call__(self, sigma: float) -> float:
        return float(1 - np.interp(-np.log(max(sigma, 1e-12)), -self.levels, self.percents))


class TimestepClock:
    """σ -> t/1000 with the timestep t that the host gives the network: the clock of Stable Diffusion's own code."""

    def __init__(self, model: ModelPatcher) -> None:
        self.timestep = model.get_model_object("model_sampling").timestep

    def __call__(self, sigma: float) -> float:
        return float(self.timestep(torch.tensor(sigma))) / 1000


def sigma_of(model: ModelPatcher, percent: float) -> float:
    """The noise level at the host's percent."""
    return float(model.get_model_object("model_sampling").percent_to_sigma(percent))


def starts_late(model: ModelPatcher, sigmas: Tensor) -> bool:
    """Whether a schedule begins below T: a second stage, or image to image."""
    return len(sigmas) > 0 and percent_of(model, float(sigmas[0])) > LATE_START


class StepCounter:
    """Counts the steps of one run by σ, because some samplers call the model more than once a step."""

    def __init__(self, sigmas: Tensor) -> None:
        self.starts = sigmas[:-1]
        self.step = -1  # of the last evaluation

    def advance(self, sigma: float) -> bool:
        """Record an evaluation at this level and return whether it is the first one of its step."""
        reached = max(int((self.starts >= sigma * (1 - TOLERANCE)).sum()) - 1, 0)
        first = reached > self.step
        self.step = max(reached, self.step)
        return first

"""A patched clone of a MODEL: host wrappers that act on every sampling run of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider
from torch import Tensor

from .errors import GuardError
from .model_call import SamplerCall
from .sampling import SamplingRun
from .step_caches import put_step_caches_last
from .two_predictions import BodySampler
from .version import OLDEST_COMFYUI

Start = Callable[["CFGGuider", "Tensor", "Tensor"], Any]  # (guider, noise, sigmas on the CPU) -> state of the run
Predict = Callable[[Any, SamplerCall], "Tensor"]  # (state, call) -> denoised prediction
Finish = Callable[[Any, "CFGGuider"], None]  # called after a run that was not interrupted
WRAPPERS = comfy.patcher_extension.WrappersMP


def patch_sampling(
    model: ModelPatcher, key: str, node: str, *, start: Start, predict: Predict, finish: Finish
) -> ModelPatcher:
    """A clone of `model` whose runs have a state of their own; an earlier patch with this key is replaced.

    A run of this pack that only measures `model` is left alone, or the node would report on a run without an image.
    The state is kept in that run's copy of the model options, never in a closure, because a patched model is sampled
    many times. CFG and other packs' hooks work inside `call.predict()`.
    """
    _check_version(node)

    def outer_sample(
        executor: Any, noise: Tensor, latent_image: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        if isinstance(sampler, BodySampler):
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        guider = executor.class_obj
        state = start(guider, noise, sigmas.detach().float().cpu())
        guider.model_options[key] = state
        out = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        finish(state, guider)
        return out

    def predict_noise(
        executor: Any, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: int | None = None
    ) -> Tensor:
        options = model_options or {}
        if key not in options:  # another pack calls the model outside a sampling run
            return executor(x, timestep, options, seed)
        return predict(options[key], SamplerCall(executor, x, timestep, options, seed))

    patched = model.clone()
    for kind, wrapper in ((WRAPPERS.OUTER_SAMPLE, outer_sample), (WRAPPERS.PREDICT_NOISE, predict_noise)):
        patched.remove_wrappers_with_key(kind, key)
        patched.add_wrapper_with_key(kind, key, wrapper)
    put_step_caches_last(patched.wrappers[WRAPPERS.PREDICT_NOISE])
    return patched


def replace_noise(model: ModelPatcher, key: str, node: str, find: Callable[[SamplingRun], Tensor]) -> ModelPatcher:
    """A clone of `model` whose runs begin with the noise that `find` gives; it replaces an earlier one of this key."""
    _check_version(node)

    def outer_sample(
        executor: Any,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Any = None,
        disable_pbar: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if isinstance(sampler, BodySampler):
            return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, **kwargs)
        packed = len(kwargs.get("latent_shapes") or ()) > 1
        run = SamplingRun(executor.class_obj, noise, latent_image, sigmas, denoise_mask, seed, packed)
        return executor(find(run), latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, **kwargs)

    patched = model.clone()
    patched.remove_wrappers_with_key(WRAPPERS.OUTER_SAMPLE, key)
    patched.add_wrapper_with_key(WRAPPERS.OUTER_SAMPLE, key, outer_sample)
    return patched


def _check_version(node: str) -> None:
    if not hasattr(WRAPPERS, "PREDICT_NOISE"):
        raise GuardError(f"{node}: this ComfyUI is too old for it. Update ComfyUI to {OLDEST_COMFYUI} or newer.")


def unused_key(model: ModelPatcher, prefix: str) -> str:
    """A key for one more patch of a kind that may be applied several times."""
    taken = model.wrappers.get(WRAPPERS.OUTER_SAMPLE, {})
    return f"{prefix}_{sum(str(key).startswith(prefix) for key in taken)}"

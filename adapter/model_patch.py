"""A patched clone of a MODEL: host wrappers that act on every sampling run of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.patcher_extension

from .errors import GuardError
from .model_call import SamplerCall
from .version import OLDEST_COMFYUI

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.samplers import CFGGuider
    from torch import Tensor

# Makes the state of one run, or None to leave the run alone: (guider, noise, sigmas on the CPU) -> state.
Start = Callable[["CFGGuider", "Tensor", "Tensor"], Any]
# Returns the denoised prediction of one evaluation: (state of the run, call) -> prediction.
Predict = Callable[[Any, SamplerCall], "Tensor"]
# Called with the state after a run that was not interrupted.
Finish = Callable[[Any, "CFGGuider"], None]
WRAPPERS = comfy.patcher_extension.WrappersMP


def patch_sampling(
    model: ModelPatcher, key: str, node: str, *, start: Start, predict: Predict, finish: Finish
) -> ModelPatcher:
    """A clone of `model` whose runs have a state of their own; an earlier patch with this key is replaced.

    The state is kept in that run's copy of the model options, never in a closure: a patched model is sampled
    many times. Everything else (CFG, other packs' hooks) works inside `call.predict()`.
    """
    patched = model.clone()

    def outer_sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        guider = executor.class_obj
        state = start(guider, noise, sigmas.detach().float().cpu())
        guider.model_options[key] = state
        out = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        finish(state, guider)
        return out

    def predict_noise(executor, x, timestep, model_options={}, seed=None):  # noqa: B006 - the host's signature
        state = model_options.get(key)
        if state is None:
            return executor(x, timestep, model_options, seed)
        return predict(state, SamplerCall(executor, x, timestep, model_options, seed))

    for kind, wrapper in ((WRAPPERS.OUTER_SAMPLE, outer_sample), (_predict_noise(node), predict_noise)):
        patched.remove_wrappers_with_key(kind, key)
        patched.add_wrapper_with_key(kind, key, wrapper)
    return patched


def unused_key(model: ModelPatcher, prefix: str) -> str:
    """A key for one more patch of a kind that may be applied several times."""
    taken = model.wrappers.get(WRAPPERS.OUTER_SAMPLE, {})
    return f"{prefix}_{sum(str(key).startswith(prefix) for key in taken)}"


def _predict_noise(node: str) -> str:
    """The wrapper around the prediction that a sampler finally gets. Raises GuardError on a host without it."""
    kind = getattr(WRAPPERS, "PREDICT_NOISE", None)
    if kind is None:
        raise GuardError(f"{node}: this ComfyUI is too old for it. Update ComfyUI to {OLDEST_COMFYUI} or newer.")
    return kind

"""Anti-Memorization Guidance as a patch on a model: it acts on what the sampler finally gets.

Three host wrappers on a clone of the model. OUTER_SAMPLE gives every run its own fresh `AMGRun`, kept in
that run's copy of the model options; PREDICT_NOISE lets everything else work first (CFG, deferral,
other packs' hooks) and then steers the samples that are too close; CALC_COND_BATCH puts the duplicated
caption into the batch that is evaluated anyway.
"""

from __future__ import annotations

from ...adapter.version import WRAPPERS, predict_noise
from .caption_predictions import with_prompt_settings
from .plan import AMGPlan, check_shape
from .run import AMGRun

KEY = "memorization_guard_amg"


def add_amg(model, plan: AMGPlan):
    """A clone of `model` that samples with `plan`; a model may be patched several times, for several sets."""
    patched = model.clone()
    key = f"{KEY}_{sum(str(k).startswith(KEY) for k in patched.wrappers.get(WRAPPERS.OUTER_SAMPLE, {}))}"
    patched.add_wrapper_with_key(WRAPPERS.OUTER_SAMPLE, key, _outer_sample(plan, key))
    patched.add_wrapper_with_key(predict_noise(plan.node), key, _predict_noise(key))
    if plan.encoded:
        patched.add_wrapper_with_key(WRAPPERS.CALC_COND_BATCH, key, _calc_cond_batch(key))
    if plan.references.metric != "latent":  # loaded with the model, so that neither pushes the other out
        patchers = [getattr(part, "patcher", None) for part in (plan.vae, plan.references.descriptor)]
        patched.set_additional_models(key, [p for p in patchers if p is not None])
    return patched


def _outer_sample(plan: AMGPlan, key: str):
    def wrapper(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        guider = executor.class_obj
        check_shape(plan, noise)
        for i, caption in enumerate(plan.encoded):
            guider.conds[f"{key}_{i}"] = with_prompt_settings(caption, guider.conds.get("positive", []))
        run = AMGRun(plan, key, guider.model_patcher, sigmas.detach().float().cpu(), len(noise))
        guider.model_options[key] = run  # this run's own copy of the options
        out = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        if plan.on_end:
            plan.on_end(run.trace)
        return out

    return wrapper


def _predict_noise(key: str):
    def wrapper(executor, x, timestep, model_options={}, seed=None):  # noqa: B006 - the host's signature
        run: AMGRun | None = model_options.get(key)
        if run is None:
            return executor(x, timestep, model_options, seed)
        return run.predict(executor, x, timestep, model_options, seed)

    return wrapper


def _calc_cond_batch(key: str):
    def wrapper(executor, model, conds, x_in, timestep, model_options):
        run: AMGRun | None = model_options.get(key)
        if run is None:
            return executor(model, conds, x_in, timestep, model_options)
        return run.companion.join(executor, model, conds, x_in, timestep, model_options)

    return wrapper

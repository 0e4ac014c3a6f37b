"""The prompts of the soak test, in the API's format: every node of the pack, on the lab checkpoint, small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support import graphs as prompts

Graph = dict[str, dict[str, Any]]
SIDE, BATCH, STEPS, COPIES = 64, 2, 6, 52  # an nL2 set compares with the 50 nearest
TEXT = "Harbour at Dawn, a red disc"
PICTURE = "training/00 Harbour at Dawn.png"
DETECTOR, SAVED = "soak.safetensors", "soak.safetensors"
LINKS: dict[str, Any] = {
    "model": ["struck", 0],
    "positive": ["positive", 0],
    "negative": ["negative", 0],
    "latent_image": ["latent", 0],
}
LOOK = {"memorized_threshold": 0.024}
VAE, CLIP = ["checkpoint", 2], ["checkpoint", 1]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def scene() -> Graph:
    """What every prompt begins with; equal in all of them, so that the host keeps one checkpoint throughout."""
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name="lab.safetensors"),
        "positive": node("CLIPTextEncode", clip=CLIP, text=TEXT),
        "negative": node("CLIPTextEncode", clip=CLIP, text=""),
        "latent": node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=BATCH),
    }


def vanilla() -> Graph:
    """KSampler on the bare checkpoint: nothing of the pack, nothing of the lab."""
    plain = {**LINKS, "model": ["checkpoint", 0]}
    return {
        **scene(),
        "sample": prompts.ksampler(**plain, steps=STEPS),
        "save": node("SaveLatent", samples=["sample", 0], filename_prefix="soak"),
    }


def census(run: int, trim: bool = False) -> Graph:
    return {**scene(), "census": node("MGLab_Census", run=run, trim=trim)}


def deferred(mode: str = "dynamic", **changed: Any) -> dict[str, Any]:
    return prompts.deferred(mode, **{**LINKS, **LOOK, "steps": STEPS, **changed})


def ksampler(**changed: Any) -> dict[str, Any]:
    return prompts.ksampler(**{**LINKS, "steps": STEPS, **changed})


def optimizer(method: str, **changed: Any) -> dict[str, Any]:
    own = {"max_iterations": 3, "candidates": 3, "target_magnitude": 0.001, "sharpness_radius": 9.0}
    return prompts.optimizer(method, **{**LINKS, **own, **changed})


def amg(references: str, **changed: Any) -> dict[str, Any]:
    near = {"threshold_min": 0.1, "threshold_max": 0.2}
    return prompts.amg(**{"model": ["struck", 0], "references": [references, 0], **near, **changed})


def folder() -> dict[str, Any]:
    wires = {"vae": VAE, "size_of": ["latent", 0]}
    return node(
        "MG_ReferencesFromFolder", folder="training", metric="latent", width=SIDE, height=SIDE, subfolders=True, **wires
    )


def pictures(metric: str, **more: Any) -> Graph:
    images = {
        "picture": node("LoadImage", image=PICTURE),
        "many": node("RepeatImageBatch", image=["picture", 0], amount=COPIES if metric == "nL2" else 2),
    }
    made = node("MG_ReferencesFromImages", images=["many", 0], captions="", metric=metric, vae=VAE, **more)
    return {**images, "refs": {**made, "inputs": {**made["inputs"], "size_of": ["latent", 0]}}}


def check(references: str) -> Graph:
    """Decode what was sampled and hold it against the references."""
    inputs = {"images": ["decoded", 0], "references": [references, 0], "vae": VAE}
    limits = {"threshold": 0.5, "latent_threshold": 0.5, "nl2_threshold": 1.4}
    return {
        "decoded": node("VAEDecode", samples=["sample", 0], vae=VAE),
        "check": node("MG_CopyCheck", **inputs, **limits),
        "compared": node("PreviewImage", images=["check", 4]),
    }


def per_sample() -> Graph:
    return {"noise": optimizer("per-sample"), "sample": deferred("off", noise=["noise", 0])}


def batch_wise() -> Graph:
    return {"noise": optimizer("batch-wise"), "sample": deferred("static", start_percent=0.4, noise=["noise", 0])}


def search_and_guider() -> Graph:
    plan = {"mode": "dynamic", "pre_escape_cfg": 0.0, "start_percent": 0.5, **prompts.RULE, **LOOK}
    guider = {k: LINKS[k] for k in ("model", "positive", "negative")}
    schedule = {"model": LINKS["model"], "scheduler": "normal", "steps": STEPS, "denoise": 1.0}
    return {
        "noise": optimizer("search"),
        "guider": node("MG_DeferredCFGGuider", cfg=7.0, **guider, **plan),
        "euler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", **schedule),
        "sample": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["euler", 0],
            sigmas=["sigmas", 0],
            latent_image=["latent", 0],
        ),
    }


def dynamic() -> Graph:
    sample = deferred(pre_escape_cfg=-1.0, sampler_name="dpmpp_sde")
    return {
        "sample": sample,
        "plot": node("MG_PlotCurve", curve=["sample", 1], quantity="pull"),
        "plotted": node("PreviewImage", images=["plot", 0]),
    }


def detect_first() -> Graph:
    look = prompts.detector(**{**LINKS, **LOOK, "steps": STEPS})
    return {"detector": look, "sample": deferred(curve=["detector", 3])}


def model_patch() -> Graph:
    plan = {"mode": "dynamic", "pre_escape_cfg": 0.0, "start_percent": 0.5, **prompts.RULE, **LOOK}
    patched = node("MG_DeferredCFG", model=LINKS["model"], **plan)
    return {"patched": patched, "sample": ksampler(model=["patched", 0], sampler_name="heun")}


def amg_latent() -> Graph:
    guided = amg("kept", deduplication=5.0, clip=CLIP)
    kept = node("MG_SaveReferences", references=["refs", 0], name="soak", overwrite=True)
    return {"refs": folder(), "kept": kept, "guided": guided, "sample": ksampler(model=["guided", 0]), **check("refs")}


def amg_through_model() -> Graph:
    loaded = node("MG_LoadReferences", file=SAVED)
    guided = amg("refs", gradient="through model")
    return {"refs": loaded, "guided": guided, "sample": deferred(model=["guided", 0]), **check("refs")}


def amg_pixels() -> Graph:
    guided = amg("refs", vae=VAE, every=2, threshold_min=-1.0, threshold_max=-0.9)
    return {**pictures("nL2"), "guided": guided, "sample": ksampler(model=["guided", 0])}


def amg_descriptor() -> Graph:
    network = node("MG_LoadCopyDetector", file=DETECTOR)
    made = pictures("descriptor", descriptor=["network", 0])
    return {
        "network": network,
        **made,
        "guided": amg("refs", vae=VAE, every=3),
        "sample": ksampler(model=["guided", 0]),
        **check("refs"),
    }


def from_latents() -> Graph:
    first = ksampler(steps=3, seed=1)
    refs = node("MG_ReferencesFromLatents", latents=["first", 0], captions="a ring\na ring")
    return {"first": first, "refs": refs, "guided": amg("refs"), "sample": deferred(model=["guided", 0])}


def calibrated() -> Graph:
    words = {"prompts": "a disc\na blue ring", "noise_seed": 1}
    measured = node("MG_Calibrate", model=LINKS["model"], clip=CLIP, latent_image=["latent", 0], **words)
    return {"measured": measured, "sample": deferred(memorized_threshold=["measured", 2])}


def alone() -> Graph:
    return {"sample": ksampler(steps=3 * STEPS)}


CONTROL = {"KSampler alone": alone}  # the same soak without this pack
WORKFLOWS: dict[str, Callable[[], Graph]] = {
    "per-sample noise": per_sample,
    "dynamic deferral, plotted": dynamic,
    "AMG latent, deduplication, copy check": amg_latent,
    "batch-wise noise, static deferral": batch_wise,
    "detector, then its curve": detect_first,
    "AMG through model, deferral": amg_through_model,  # loads what the other has saved
    "search, deferred guider": search_and_guider,
    "AMG nL2": amg_pixels,
    "deferral as a model patch": model_patch,
    "AMG descriptor, copy check": amg_descriptor,
    "references from latents": from_latents,
    "calibrated deferral": calibrated,
}


# Out of memory in an evaluation of ours, these ask for fewer samples at once, and go on.
FRUGAL = (
    "per-sample noise",
    "AMG latent, deduplication, copy check",
    "batch-wise noise, static deferral",
    "detector, then its curve",
    "AMG through model, deferral",
    "search, deferred guider",
    "calibrated deferral",
)


def workflow(name: str, run: int, kind: str = "none", at_call: int = 1) -> Graph:
    """Node `save` keeps the latents, `tell` how often the model was called."""
    return {
        **scene(),
        "struck": node("MGLab_StruckModel", model=["checkpoint", 0], kind=kind, at_call=at_call, run=run),
        **(WORKFLOWS | CONTROL)[name](),
        "save": node("SaveLatent", samples=["sample", 0], filename_prefix="soak"),
        "tell": node("MGLab_Tell", meter=["struck", 1], after=["sample", 0]),
    }

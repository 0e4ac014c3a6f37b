"""MG_AMGGuidance: steer sampling away from references that it gets too close to (Chen et al., 2404.00922)."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..adapter.errors import GuardError
from ..adapter.hints import guidance_negative_hint, preset_notes
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..drawing.node_views import guidance_view, text_view
from ..methods.amg.patch import add_amg
from ..methods.amg.plan import AMGPlan, complete
from ..mitigation import published_settings as published
from ..mitigation.amg.guidance import GROWTHS, GuidanceStrengths, as_released
from ..mitigation.amg.threshold import SCHEDULES, Threshold
from ..mitigation.amg.trace import GuidanceTrace
from ..mitigation.references.reference_set import ReferenceSet
from ..references.feature_extraction import vae_warning
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

NAME = "AMG Guidance"
GRADIENTS = ["through prediction", "through model"]
DEFAULTS = {"dissimilarity_growth": "ramp", "every": 1, "memorized_threshold": 0.0}  # of optional inputs
TOOLTIPS = {
    "references": "The images to stay away from, such as the training images of the model or LoRA.",
    "despecification": "How strongly the node reduces guidance (CFG) as long as an image is too close to a reference. "
    "Higher: guidance is reduced more, but the CFG scale never falls below 1. Despecification works only with a cfg "
    "above 1 on the sampler. The value 0 turns despecification off.",
    "deduplication": "How strongly to steer away from a caption that several references share. Such a caption often "
    "makes the model copy a memorized image. Higher: steers away more strongly. Start with 13. Deduplication needs "
    "references with captions, a connected `clip`, and a cfg above 1 on the sampler. A value of 0 turns deduplication "
    "off.",
    "dissimilarity": "How strongly to push away from the nearest reference. Lower: the push is weaker, so more copies "
    "remain. Raising the value above 10 has little effect, because the push has an upper limit. The value 0 turns the "
    "push off.",
    "threshold_min": "At the start of sampling, the node steers an image away from a reference if the image's "
    "closeness to this reference is above this value. A closeness of 1 means that the image is a copy. With 0.5, the "
    "node acts well before an image becomes a copy. Lower: the node steers more images, but also some that would not "
    "become copies. If the references were made with the copy detector SSCD, start with 0.3.",
    "threshold_max": "At the end of sampling, the node steers an image away from a reference if the image's closeness "
    "to this reference is above this value. Higher: finished images can come closer to a reference.",
    "threshold_schedule": "How the threshold rises during sampling, from threshold_min to threshold_max. Parabolic: "
    "the threshold rises slowly at first and faster later, as in the paper of Chen et al. Exponential: the threshold "
    "rises mostly near the end, as in the code of Chen et al. Constant: the threshold stays at threshold_min.",
    "gradient": "How dissimilarity finds the direction that leads away from the reference. Through prediction: the "
    "fast way, which the code of Chen et al. uses. Through model: exactly the formula of their paper. This way needs "
    "much VRAM, and if dissimilarity acts in a step, this step takes about three times as long as a step of KSampler "
    "alone.",
    "vae": "Needed for references with the nL2 metric or the descriptor metric, because these metrics compare decoded "
    "images. A TAESD works, too, and is much faster than the model's own VAE.",
    "dissimilarity_growth": "How strong the push away from the nearest reference is during the run. Ramp: the push "
    "grows as the image forms and comes closer to the reference, as in the code of Chen et al. Constant: the node uses "
    "the formula of their paper, without this growth. The push is then strong in early steps and nearly gone in late "
    "steps.",
    "every": "With 3, for example, the node compares the image with the references only in every third step. Higher: "
    "saves time, above all with references that need a VAE, but the node may notice too late that an image becomes a "
    "copy.",
    "memorized_threshold": "The pull is how far guidance (CFG) moves an image. With a value above 0, the node steers "
    "an image only if the pull at the first step is at or above this value. This node measures the pull in the same "
    "unit as Deferred-CFG KSampler, so the same value fits both nodes. Images with a smaller pull are not compared "
    "with the references and come out exactly as without this node. With 0, the node steers every image that comes too "
    "close to a reference.",
}


class AMGGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["anti-memorization guidance", "training data", "avoid copies", "references", "similarity"],
            node_id="MG_AMGGuidance",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Patches a model so that sampling steers an image away from your reference images when the "
            "image comes too close to one of them. To steer, the node reduces guidance (CFG) and pushes the image away "
            "from the nearest reference. If several references share a caption, the node also moves the image away "
            "from what this caption asks for. An image that stays far from all references comes out exactly as it "
            "would without this node. The method is from Chen et al., CVPR 2024.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model", tooltip="The model to patch, with its LoRAs and other patches."),
                schema.References.Input("references"),
                schema.number("despecification", 13.0, (0.0, 1000.0, 0.5), finer=True),
                schema.number("deduplication", 0.0, (0.0, 1000.0, 0.5), finer=True),
                schema.number("dissimilarity", 10.0, (0.0, 10000.0, 0.5), finer=True),
                schema.number("threshold_min", 0.5, (-1.0, 1.0, 0.01)),
                schema.number("threshold_max", 0.6, (-1.0, 1.0, 0.01)),
                *schema.advanced(
                    io.Combo.Input("threshold_schedule", options=list(SCHEDULES), default="parabolic"),
                    io.Combo.Input("gradient", options=GRADIENTS, default=GRADIENTS[0]),
                ),
                io.Vae.Input("vae", optional=True),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The model's text encoder, which reads the captions for deduplication.",
                ),
                *schema.advanced(
                    io.Combo.Input("dissimilarity_growth", options=list(GROWTHS), default="ramp", optional=True),
                    io.Int.Input("every", default=1, min=1, max=100, optional=True),
                ),
                schema.number("memorized_threshold", 0.0, (0.0, 10.0, 0.001), optional=True, finer=True),
                schema.preset_input(published.GUIDANCE),
            ),
            outputs=[io.Model.Output(display_name="model", tooltip="The patched model. Connect it to any sampler.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @check_inputs
    def execute(
        cls,
        model: ModelPatcher,
        references: ReferenceSet,
        vae: VAE | None = None,
        clip: CLIP | None = None,
        preset: str = published.CUSTOM,
        **inputs: Any,  # the other inputs, by their names
    ) -> io.NodeOutput:
        told = preset_notes(published.GUIDANCE, preset, model, None, NAME)
        settings = SimpleNamespace(**{**DEFAULTS, **published.applied(published.GUIDANCE, preset, inputs)})
        guidance = _strengths(settings)
        if preset == published.AMG_RELEASED:
            guidance = as_released(guidance)
            if not getattr(references.descriptor, "amg_as_released", False):
                told.append(
                    "Hint: `references` do not match the preset. Make them with Load Copy Detector, `preparation` set "
                    "to AMG as released."
                )
            if clip is None or not references.has_captions:  # the authors' code also goes without a duplicated caption
                guidance = replace(guidance, deduplication=0.0)
                told.append("Hint: deduplication is off, because it needs captions in `references`, and `clip`.")
        if other := vae_warning(references, vae):
            told.append(f"Hint: {other}")
        node, live = cls.hidden.unique_id, LiveView(cls.hidden.unique_id)
        if guidance.off:
            off = "Off: all three strengths are 0, so the model is not changed."
            return io.NodeOutput(model, ui=live.finish(text_view(off)))

        def on_end(trace: GuidanceTrace) -> None:
            hints = [*told, *guidance_negative_hint(node)]
            live.finish(guidance_view(trace, references, hints, done=True))

        plan = AMGPlan(
            references,
            guidance,
            through_model=settings.gradient == GRADIENTS[1],
            every=settings.every,
            memorized_threshold=settings.memorized_threshold,
            vae=vae,
            node=NAME,
            on_end=on_end,
            on_step=lambda trace: live.show(lambda: guidance_view(trace, references, told, done=False)),
        )
        return io.NodeOutput(add_amg(model, complete(plan, model, clip)), ui=live.ui)


def _strengths(settings: SimpleNamespace) -> GuidanceStrengths:
    low, high, schedule = settings.threshold_min, settings.threshold_max, settings.threshold_schedule
    if low > high and schedule != "constant":
        raise GuardError(f"{NAME}: `threshold_min` ({low}) is above `threshold_max` ({high}). Set it lower.")
    return GuidanceStrengths(
        settings.despecification,
        settings.deduplication,
        settings.dissimilarity,
        Threshold(low, high, schedule),
        settings.dissimilarity_growth,
    )


NODES = [AMGGuidance]

"""MG_Guard: everything that this pack does without questions, in one node between the model and any sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfy_api.latest import io
from torch import Tensor

from ..adapter.conditioning import encode_text, is_same_text
from ..adapter.errors import GuardError
from ..adapter.folders import input_folder, input_folders
from ..adapter.hints import distilled_hint
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..adapter.sampled_model import has_other_weights
from ..drawing.guard_view import GuardView
from ..methods.amg.patch import add_amg
from ..methods.amg.plan import AMGPlan, complete
from ..methods.deferred_cfg.patch import add_deferred_cfg
from ..methods.deferred_cfg.plan import DeferralPlan
from ..methods.quiet_noise import NoiseSearch, add_noise_search
from ..methods.self_calibration import SelfCalibration
from ..mitigation.amg.guidance import GuidanceStrengths
from ..mitigation.amg.threshold import Threshold
from ..mitigation.escape.calibration import LEAST_RATIO
from ..mitigation.escape.rules import EscapeRule
from ..references.folder_sets import FolderSets
from ..references.image_folder import fingerprint, list_folder
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.samplers import CFGGuider
    from comfy.sd import CLIP, VAE

    from ..mitigation.references.reference_set import ReferenceSet

NAME = "Memorization Guard (Simple)"
NONE = "(none)"


@dataclass(frozen=True)
class Strength:
    """What one word stands for."""

    candidates: int  # noises that are tried where the seed's own begins inside a basin
    quiet: float  # what another noise may pull with, in ordinary prompts' medians; see `quiet_noise`
    start_percent: float  # guidance begins here at the latest where the prompt pulls
    inside_scale: float  # g₀
    drop_ratio: float
    threshold: Threshold  # of closeness to the folder's images
    sensitive: bool = False  # the lowest threshold of the pull


STRENGTHS = {
    "gentle": Strength(8, LEAST_RATIO, 0.3, 0.0, 0.5, Threshold(0.6, 0.7)),
    # From here the defaults of Deferred-CFG KSampler and AMG Guidance.
    "normal": Strength(24, LEAST_RATIO, 0.5, 0.0, 0.5, Threshold(0.5, 0.6)),
    "strong": Strength(32, 1.0, 0.5, -1.0, 0.4, Threshold(0.4, 0.5), sensitive=True),
}
WAYS_OUT = {  # where an image was still in a basin at start_percent
    "gentle": "set `strength` to normal",
    "normal": "set `strength` to strong",
    "strong": "try another seed, or reword the prompt",
}
OWN_PROMPTS = (
    "If this prompt is an ordinary one, your model reacts unusually to the built-in prompts: fill `ordinary_prompts` "
    "with ordinary prompts of your own."
)
WEIGHTS_BEHIND = (
    "A LoRA or another node changes the model's weights after this node, and the model was measured with this change. "
    "If the LoRA also changes the text encoder, put this node after the LoRA: it reads the ordinary prompts with the "
    "text encoder that is connected here."
)
UNGUIDED = {  # what a cfg of 1 leaves undone, without a folder and with one
    False: "this node changed nothing",
    True: "this node could only steer away from the images in the folder",
}
TOOLTIPS = {
    "strength": "Gentle: changes the images least, but lets some copies through. Normal: right for most images. "
    "Strong: gives the fewest copies, but also changes images of some ordinary prompts. If the prompt pulls hard, the "
    "new image may follow the prompt less closely than with normal.",
    "folder": "Optional: a folder of images that your results must not copy, such as a LoRA's training images. The "
    "folder must be in ComfyUI's input directory. If you choose a folder, connect a VAE, too.",
    "vae": "The model's VAE. It encodes the images of the folder.",
    "ordinary_prompts": "Optional: ordinary prompts, separated by semicolons, with which the node measures your model. "
    "Give about a dozen if the node calls every prompt memorized, or if your model was trained on tags or on captions "
    "in a language other than English. If you leave this empty, the node uses twelve everyday prompts in English.",
}


class Guard(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["anti-memorization", "overfit", "copy protection", "training data", "plagiarism", "safe"],
            node_id="MG_Guard",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Put this between your model and any sampler. On your model, the node measures how far "
            "guidance (CFG) moves the images of ordinary prompts. If a prompt pulls an image towards a training image, "
            "the node starts this image from different noise or delays guidance. If you choose a folder, the node also "
            "steers the new image away from the images in that folder. The node lowers the risk of copies, but "
            "guarantees nothing.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model", tooltip="The model that will sample, with its LoRAs and other patches."),
                io.Clip.Input("clip", tooltip="The model's text encoder, which reads the ordinary prompts."),
                io.Combo.Input("strength", options=list(STRENGTHS), default="normal"),
                io.Combo.Input("folder", options=[NONE, *input_folders()], default=NONE, optional=True),
                io.Vae.Input("vae", optional=True),
                *schema.advanced(io.String.Input("ordinary_prompts", default="", optional=True)),
            ),
            outputs=[io.Model.Output(display_name="model", tooltip="The guarded model, for any sampler.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = NONE) -> bool:
        return True  # `execute` says what is wrong: a branch that fails here is left out without a word

    @classmethod
    def fingerprint_inputs(cls, folder: str = NONE, **_: object) -> str:
        try:
            return "" if folder == NONE else fingerprint(list_folder(input_folder(folder, NAME), subfolders=True))
        except GuardError as error:
            return str(error)

    @classmethod
    @check_inputs
    def execute(
        cls,
        model: ModelPatcher,
        clip: CLIP,
        strength: str,
        folder: str = NONE,
        vae: VAE | None = None,
        ordinary_prompts: str = "",
    ) -> io.NodeOutput:
        asked = STRENGTHS[strength]
        told = GuardView(LiveView(cls.hidden.unique_id), distilled_hint(model))
        prompts = [prompt.strip() for prompt in ordinary_prompts.split(";") if prompt.strip()]
        calibration = SelfCalibration(clip, NAME, prompts, asked.sensitive, told.show_measuring)
        empty = encode_text(clip, "")

        def deferral(guider: CFGGuider, noise: Tensor) -> DeferralPlan:
            if guider.cfg == 1:  # no guidance, so nothing to measure
                told.begin()
                return DeferralPlan(node=NAME, unguided=UNGUIDED[folder != NONE], on_end=told.finish_curve)
            found = calibration.at(guider, tuple(noise.shape[1:]))
            told.begin(
                found.ordinary_magnitude,
                above="" if prompts else OWN_PROMPTS,
                below="" if asked.sensitive else WAYS_OUT[strength],
                behind=WEIGHTS_BEHIND if has_other_weights(guider, model) else "",
            )
            same = is_same_text(guider.conds.get("negative"), empty)
            return DeferralPlan(
                rule=EscapeRule("sharp drop", asked.drop_ratio, found.memorized_threshold),
                start_percent=asked.start_percent,
                inside_scale=asked.inside_scale,
                inside=told.loud,
                null=None if same else empty,
                node=NAME,
                not_escaped=f"still had a strong pull when guidance had to start: {WAYS_OUT[strength]}",
                on_end=told.finish_curve,
                on_step=told.show_curve,
            )

        search = NoiseSearch(
            null=empty,
            ordinary=lambda run: calibration.ahead(run.guider, tuple(run.noise.shape[1:])),
            candidates=asked.candidates,
            quiet=asked.quiet,
            node=NAME,
            on_end=told.finish_search,
        )
        guarded = add_deferred_cfg(add_noise_search(model, search), deferral, node=NAME)
        if folder != NONE:
            strengths = GuidanceStrengths(13.0, 0.0, 10.0, asked.threshold)

            def away(references: ReferenceSet) -> AMGPlan:
                plan = AMGPlan(references, strengths, node=NAME, on_end=lambda t: told.finish_trace(t, references))
                return complete(plan, model, None)

            sets = FolderSets(folder, vae, NAME, away)
            guarded = add_amg(guarded, lambda noise: sets.at(tuple(noise.shape[1:])), node=NAME)
        return io.NodeOutput(guarded, ui=told.live.ui)


NODES = [Guard]

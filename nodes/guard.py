"""MG_Guard: everything that this pack does without questions, in one node between the model and any sampler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from comfy_api.latest import io
from torch import Tensor

from ..adapter.conditioning import encode_text, is_same_text
from ..adapter.errors import GuardError
from ..adapter.folders import input_folder, input_folders
from ..adapter.hints import distilled_hint
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..drawing.node_views import View, escape_view
from ..methods.amg.patch import add_amg
from ..methods.amg.plan import AMGPlan, complete
from ..methods.deferred_cfg.patch import add_deferred_cfg
from ..methods.deferred_cfg.plan import DeferralPlan
from ..methods.self_calibration import SelfCalibration
from ..mitigation.amg.guidance import GuidanceStrengths
from ..mitigation.amg.threshold import Threshold
from ..mitigation.amg.trace import GuidanceTrace
from ..mitigation.escape.curve import EscapeCurve
from ..mitigation.escape.rules import EscapeRule
from ..mitigation.references.reference_set import ReferenceSet
from ..references.builder import ReferenceSetBuilder
from ..references.feature_extraction import feature_extractor
from ..references.image_folder import collect, fingerprint, list_folder
from ..references.image_resize import latent_in_pixels
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.samplers import CFGGuider
    from comfy.sd import CLIP, VAE

NAME = "Memorization Guard (Simple)"
NONE = "(none)"


@dataclass(frozen=True)
class Strength:
    """What one word stands for."""

    start_percent: float  # guidance begins here at the latest where the prompt pulls
    inside_scale: float  # g₀
    drop_ratio: float
    threshold: Threshold  # of closeness to the folder's images


STRENGTHS = {
    "gentle": Strength(0.3, 0.0, 0.5, Threshold(0.6, 0.7)),
    "normal": Strength(0.5, 0.0, 0.5, Threshold(0.5, 0.6)),  # the defaults of Deferred-CFG KSampler and AMG Guidance
    "strong": Strength(0.5, -1.0, 0.4, Threshold(0.4, 0.5)),
}
TOOLTIPS = {
    "strength": "Gentle: changes least, some copies remain. Normal: for most. Strong: fewest copies, and less of the "
    "prompt in images that were pulled towards a training image.",
    "folder": "Optional: a folder of images under ComfyUI's input directory to stay away from, such as a LoRA's "
    "training images. Needs vae.",
    "vae": "The model's VAE, to read the images of the folder.",
}


class Guard(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["anti-memorization", "overfit", "copy protection", "training data", "plagiarism", "safe"],
            node_id="MG_Guard",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Put this between your model and any sampler. It finds out what is normal for your model, "
            "delays guidance where a prompt pulls towards a training image, and steers away from the images of a "
            "folder if you name one. It lowers the risk of a copy; it gives no guarantee.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model", tooltip="The model that will sample, with its LoRAs and other patches."),
                io.Clip.Input("clip", tooltip="Its text encoder, for the ordinary prompts that it is measured with."),
                io.Combo.Input("strength", options=list(STRENGTHS), default="normal"),
                io.Combo.Input("folder", options=[NONE, *input_folders()], default=NONE, optional=True),
                io.Vae.Input("vae", optional=True),
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
        cls, model: ModelPatcher, clip: CLIP, strength: str, folder: str = NONE, vae: VAE | None = None
    ) -> io.NodeOutput:
        asked = STRENGTHS[strength]
        told = Told(LiveView(cls.hidden.unique_id), distilled_hint(model))
        calibration, empty = SelfCalibration(model, clip, NAME), encode_text(clip, "")

        def deferral(guider: CFGGuider, noise: Tensor) -> DeferralPlan:
            found = calibration.at(tuple(noise.shape[1:]))
            told.begin(f"Measured on this model: an ordinary prompt pulls with {found.ordinary_magnitude:.4f}.")
            same = is_same_text(guider.conds.get("negative"), empty)
            return DeferralPlan(
                rule=EscapeRule("sharp drop", asked.drop_ratio, found.memorized_threshold),
                start_percent=asked.start_percent,
                inside_scale=asked.inside_scale,
                null=None if same else empty,
                node=NAME,
                on_end=told.finish_curve,
                on_step=told.show_curve,
            )

        guarded = add_deferred_cfg(model, deferral, node=NAME)
        if folder != NONE:
            sets = FolderSets(folder, vae)
            strengths = GuidanceStrengths(13.0, 0.0, 10.0, asked.threshold)

            def away(noise: Tensor) -> AMGPlan:
                references = sets.at(tuple(noise.shape[1:]))
                plan = AMGPlan(references, strengths, node=NAME, on_end=lambda t: told.finish_trace(t, references))
                return complete(plan, model, None)

            guarded = add_amg(guarded, away, node=NAME)
        return io.NodeOutput(guarded, ui=told.live.ui)


@dataclass
class FolderSets:
    """References of a folder's images, made once for each size that is sampled."""

    folder: str
    vae: VAE | None
    made: dict[tuple[int, ...], ReferenceSet] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vae is None:
            raise GuardError(f"{NAME}: `folder` {self.folder!r} is chosen, and `vae` is not connected. Connect it.")
        if not list_folder(input_folder(self.folder, NAME), subfolders=True).images:
            raise GuardError(f"{NAME}: `folder` {self.folder!r} holds no images. Put png, jpg or webp files into it.")

    def at(self, shape: tuple[int, ...]) -> ReferenceSet:
        if shape not in self.made:
            listed = list_folder(input_folder(self.folder, NAME), subfolders=True)
            size = latent_in_pixels(shape, self.vae, NAME)
            extractor = feature_extractor("latent", NAME, vae=self.vae, descriptor=None, size=size)
            builder = ReferenceSetBuilder(extractor, NAME, len(listed.images))
            collect(listed, builder, max(size))
            self.made[shape] = builder.finish()
        return self.made[shape]


@dataclass
class Told:
    """The node's view, of which the two parts of the guard tell in any order."""

    live: LiveView
    hints: list[str]
    measured: str = ""
    steered: str = ""
    curve: EscapeCurve | None = None

    def begin(self, measured: str) -> None:
        self.measured, self.steered, self.curve = measured, "", None

    def view(self, curve: EscapeCurve, done: bool) -> View:
        return escape_view(curve, done=done, notes=[n for n in (self.measured, self.steered, *self.hints) if n])

    def show_curve(self, curve: EscapeCurve) -> None:
        self.live.show(lambda: self.view(curve, done=False))

    def finish_curve(self, curve: EscapeCurve) -> None:
        self.curve = curve
        self.live.finish(self.view(curve, done=True))

    def finish_trace(self, trace: GuidanceTrace, references: ReferenceSet) -> None:
        self.steered = trace.headline(references.names)
        if self.curve is not None:  # the deferral ended first
            self.live.finish(self.view(self.curve, done=True))


NODES = [Guard]

"""MG_BasinEscapeDetector: is this prompt inside a basin, and when does it leave it? (Jain et al., 2411.16738)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io
from torch import Tensor

from ..adapter.errors import GuardError
from ..adapter.hints import negative_hint
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..adapter.long_work import progress
from ..adapter.noise import initial_noise, noise_level_hint
from ..adapter.sampling import SamplingInputs, prepare_latent
from ..adapter.schedule import ksampler_sigmas, percent_of, scheduler_names
from ..drawing.escape_plot import plot_curves
from ..drawing.node_views import escape_view
from ..methods.deferred_cfg.plan import DeferralPlan
from ..methods.escape_detector import detect
from ..mitigation.escape.curve import EscapeCurve
from ..mitigation.escape.rules import EscapeRule, Rule
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

NAME = "Basin-Escape Detector"
TOOLTIPS = {
    "steps": "Set the same number of steps as on the sampler. Higher: gives a more exact moment at which guidance "
    "(CFG) can start, but takes longer.",
    "scheduler": "Set the same scheduler as on the sampler, so that a step number means the same moment in both nodes.",
    "noise": "The node measures with this noise instead of the seed's noise. Connect, for example, the noise from the "
    "Noise Optimizer.",
    "sigmas": "A schedule of your own, used instead of steps and scheduler.",
    "drop_ratio": "Sharp drop only: how far the prompt's pull towards a training image must fall before guidance (CFG) "
    "can start. The node squares `drop_ratio`, so with 0.5 the pull must fall to 0.25 times its highest value so far. "
    "Lower: the pull must fall further. The node then finds a later step, so guidance is less likely to start too "
    "early.",
    "memorized_threshold": "The pull is how far guidance (CFG) would move an image. If the pull at the first step is "
    "at least this value, the prompt counts as memorized. Lower: the node finds more of the memorized prompts, but "
    "also mistakes more of the ordinary prompts for memorized prompts.",
}


class BasinEscapeDetector(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["attraction basin", "transition point", "memorization test", "guidance magnitude"],
            node_id="MG_BasinEscapeDetector",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Samples without guidance (CFG) and measures at each step how far guidance would move the "
            "image. This distance is the prompt's pull. As long as the pull is high, guidance would drag the image "
            "towards a training image. This means that the image is inside an attraction basin. When the pull drops "
            "sharply, the image has left the basin. The node stops as soon as every image of the batch has left its "
            "basin.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model", tooltip="The model that will sample, with its LoRAs and patches."),
                io.Conditioning.Input("positive", tooltip="The prompt to examine."),
                io.Conditioning.Input("negative", tooltip="The negative prompt that goes into the sampler."),
                io.Latent.Input("latent_image", tooltip="The same latent that goes into the sampler."),
                schema.seed_input(
                    "noise_seed",
                    "The seed that you use on the sampler. With another seed, the sampler makes another image, and the "
                    "result of this node does not apply to that image.",
                ),
                io.Int.Input("steps", default=50, min=1, max=10000),
                io.Combo.Input("scheduler", options=scheduler_names(), default="normal"),
                *schema.rule_inputs(),
                io.Noise.Input("noise", optional=True),
                io.Sigmas.Input("sigmas", optional=True),
                schema.null_input(),
            ),
            outputs=[
                io.Boolean.Output(
                    display_name="memorized",
                    tooltip="True if, at the first step, the pull on at least one image of the batch is at or above "
                    "memorized_threshold.",
                ),
                io.Int.Output(
                    display_name="transition_step",
                    tooltip="How many steps it takes until the prompt no longer pulls any image towards a training "
                    "image. The number is 0 if the prompt is not memorized.",
                ),
                io.Float.Output(
                    display_name="transition_percent",
                    tooltip="The moment from which the prompt no longer pulls any image towards a training image, as a "
                    "number from 0 (the model's highest noise level) to 1 (the end of sampling). Connect this number "
                    "to start_percent on the Deferred-CFG KSampler, with mode set to static.",
                ),
                schema.Curve.Output(
                    display_name="curve",
                    tooltip="The prompt's pull at each step. Connect this output to curve on the Deferred-CFG "
                    "KSampler.",
                ),
                io.Image.Output(display_name="plot", tooltip="The prompt's pull at each step, drawn as a curve."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            is_output_node=True,  # so that it can run with nothing connected: its view shows the result
        )

    @classmethod
    @check_inputs
    def execute(
        cls,
        model: ModelPatcher,
        positive: list,
        negative: list,
        latent_image: dict,
        noise_seed: int,
        steps: int,
        scheduler: str,
        rule: Rule,
        drop_ratio: float,
        memorized_threshold: float,
        noise: Any = None,
        sigmas: Tensor | None = None,
        null: list | None = None,
    ) -> io.NodeOutput:
        latent = prepare_latent(model, latent_image, NAME)
        sigmas = ksampler_sigmas(model, steps, "euler", scheduler) if sigmas is None else sigmas
        if len(sigmas) < 2:
            raise GuardError(f"{NAME}: `sigmas` needs at least two values. Connect the sampler's whole schedule.")
        bar, live = progress(len(sigmas) - 1), LiveView()

        def on_step(curve: EscapeCurve) -> None:
            bar.update_absolute(curve.measured, curve.steps)
            live.show(lambda: escape_view(curve, done=False))

        escape = EscapeRule(rule, drop_ratio, memorized_threshold)
        deferral = DeferralPlan(rule=escape, null=null, node=NAME, on_step=on_step)
        start = initial_noise(latent, noise_seed, noise, NAME)
        run = SamplingInputs(model, positive, negative, latent, start, sigmas, noise_seed, NAME)
        curve = detect(deferral, run)
        hints = negative_hint(cls.hidden.prompt, cls.hidden.unique_id, null) + noise_level_hint(noise, sigmas)
        view = live.finish(escape_view(curve, done=True, notes=hints, alarm=True))
        percent = percent_of(model, float(curve.transition_sigma.min())) if curve.latest else 0.0
        return io.NodeOutput(bool(curve.memorized.any()), curve.latest, percent, curve, plot_curves([curve]), ui=view)


NODES = [BasinEscapeDetector]

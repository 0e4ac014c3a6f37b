"""MG_NoiseOptimizer: initial noise that leaves the memorization basin early (Han et al., 2510.08625)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io
from torch import Tensor

from ..adapter.autograd.checkpointing import CHECKPOINTING
from ..adapter.hints import distilled_hint, negative_hint, preset_notes
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..adapter.noise import FixedNoise, drawn_noise
from ..adapter.sampling import SamplingInputs, prepare_latent
from ..adapter.schedule import one_step_schedule
from ..drawing.node_views import noise_view, report_view
from ..methods.noise_adjustment import METHODS, NoisePlan, find_noise
from ..mitigation import published_settings as published
from ..mitigation.noise.norm_constraint import CONSTRAINTS
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

NAME = "Noise Optimizer"
TOOLTIPS = {
    "latent_image": "The same latent as the sampler gets: the noise fits its shape.",
    "noise_seed": "Seed of the noise that is adjusted: KSampler's noise for the same seed.",
    "method": "Per-sample: gradient descent for each picture, strongest, needs the most memory. Batch-wise: a few "
    "evaluations without gradients; sample with deferred CFG after it. Search: keeps the best of several seeds, "
    "works on quantized models.",
    "target_magnitude": "Stop a picture when its guidance magnitude is at or below this. Lower means fewer copies "
    "and more iterations. 0.007 is the paper's 0.9 for SD 1.4 at 512×512.",
    "target_units": "Relative: d/√dim, carries over between resolutions. Absolute: d as in the papers.",
    "learning_rate": "Per-sample: size of a step. Higher reaches the target in fewer iterations but moves the noise "
    "further from a natural one. The papers use 0.01 for SD 1.4 and 0.1 for SD 2.",
    "weight_decay": "Per-sample: pulls the noise towards zero while it moves. Higher keeps it smaller.",
    "max_iterations": "Per-sample: at most so many updates, each as dear as about three sampling steps. 0 only "
    "measures.",
    "adjustment_strength": "Batch-wise (γ̃): how far each adjustment moves the noise. Higher escapes sooner and "
    "drifts further. 0 leaves the noise as it is.",
    "sharpness_radius": "Batch-wise (ρ): how far away the slope is probed. 50 suits SD 1.4 at 512×512, 30 SD 2; "
    "scale it with the square root of the latent's size.",
    "adjustments": "Batch-wise (M): number of adjustments, two paired model evaluations each. 2 for SD 1.4, 4 for "
    "SD 2.",
    "candidates": "Search: noises tried for each picture. More finds a smaller magnitude.",
    "sigmas": "The sampler's schedule; its first value is where the noise is measured. Without it: the model's "
    "highest noise level.",
    "constraint": "Per-sample: what keeps the noise plausible. Free: the paper's weight decay alone. Shell: it "
    "stays as long as random noise can be. Sphere: it turns but does not grow. Chi: growing is discouraged. Less "
    "growth means cleaner pictures.",
    "memorized_threshold": "Leave the noise of a picture as it is if its guidance magnitude (d/√dim) is below this, so "
    "that ordinary prompts keep KSampler's pictures. 0: every noise goes to the target. Calibrate Thresholds finds it.",
    "checkpointing": "Per-sample: compute parts of the model twice instead of keeping them in memory. Auto: as much "
    "as memory asks for. On: half of the blocks. Full: all of them, least memory, slowest.",
}


class NoiseOptimizer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["initial noise", "seed search", "memorization", "adjust noise", "noise optimization"],
            node_id="MG_NoiseOptimizer",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Finds initial noise from which sampling leaves a memorization basin early, so that the "
            "prompt can guide the picture without pulling it towards a training image. Han et al., NeurIPS 2025.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model", tooltip="The model that will sample, with its LoRAs and patches."),
                io.Conditioning.Input("positive", tooltip="The prompt whose memorization is to be escaped."),
                io.Conditioning.Input("negative", tooltip="The negative prompt, as it goes into the sampler."),
                io.Latent.Input("latent_image"),
                schema.seed_input("noise_seed"),
                io.Combo.Input("method", options=METHODS, default="per-sample"),
                schema.number("target_magnitude", 0.007, (0.0, 1000.0, 0.001), finer=True),
                io.Combo.Input("target_units", options=["relative", "absolute"], default="relative"),
                *schema.advanced(
                    schema.number("learning_rate", 0.01, (0.0001, 10.0, 0.001), finer=True),
                    schema.number("weight_decay", 0.01, (0.0, 10.0, 0.001), finer=True),
                ),
                io.Int.Input("max_iterations", default=200, min=0, max=10000),
                schema.number("adjustment_strength", 0.7, (0.0, 100.0, 0.05)),
                schema.number("sharpness_radius", 50.0, (0.0, 10000.0, 0.5)),
                io.Int.Input("adjustments", default=2, min=0, max=100),
                io.Int.Input("candidates", default=16, min=1, max=4096),
                schema.null_input(),
                io.Sigmas.Input("sigmas", optional=True),
                *schema.advanced(
                    io.Combo.Input("constraint", options=list(CONSTRAINTS), default="shell", optional=True),
                    io.Combo.Input("checkpointing", options=list(CHECKPOINTING), default="auto", optional=True),
                ),
                schema.preset_input(published.NOISE),
                schema.number("memorized_threshold", 0.0, (0.0, 10.0, 0.001), optional=True, finer=True),
            ),
            outputs=[
                io.Noise.Output(display_name="noise", tooltip="For our sampler or SamplerCustomAdvanced."),
                schema.Report.Output(display_name="report", tooltip="Magnitude before and after, per picture."),
                io.String.Output(display_name="summary", tooltip="The report in words; shows what was not reached."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
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
        null: list | None = None,
        sigmas: Tensor | None = None,
        preset: str = published.CUSTOM,
        **inputs: Any,  # target_units, and the fields of NoisePlan
    ) -> io.NodeOutput:
        latent = prepare_latent(model, latent_image, NAME)
        samples = latent["samples"]
        told = preset_notes(published.NOISE, preset, model, samples, NAME)
        sigmas = one_step_schedule(model, sigmas, NAME, published.STARTS.get(preset))
        settings = published.applied(published.NOISE, preset, inputs)
        relative = settings.pop("target_units") == "relative"

        def draw(i: int) -> Tensor:
            return drawn_noise(samples, (noise_seed + i) % 2**64, latent.get("batch_index"))

        live = LiveView()
        noise, report = find_noise(
            NoisePlan(relative=relative, **settings),
            SamplingInputs(model, positive, negative, latent, draw(0), sigmas, noise_seed, NAME, null),
            draw,
            on_round=lambda *seen: live.show(lambda: noise_view(*seen, done=False)),
        )
        fixed = FixedNoise(noise.detach().to("cpu", samples.dtype), noise_seed, float(sigmas[0]))
        hints = told + negative_hint(cls.hidden.prompt, cls.hidden.unique_id, null) + distilled_hint(model)
        view = live.finish(report_view(report, hints))
        return io.NodeOutput(fixed, report, "\n\n".join([*report.lines(), *hints]), ui=view)


NODES = [NoiseOptimizer]

"""MG_NoiseOptimizer: initial noise that leaves the memorization basin early (Han et al., 2510.08625)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io
from torch import Tensor

from ..adapter.autograd.checkpointing import CHECKPOINTING
from ..adapter.hints import distilled_hint, negative_hint, preset_notes, size_hint
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
DEFAULT_TARGET = 0.007  # d/√dim
TOOLTIPS = {
    "latent_image": "The same latent that goes into the sampler. The noise is made for its size.",
    "noise_seed": "Seed of the noise to start from. The same seed gives the same noise as in KSampler.",
    "method": "Per-sample: optimizes each image's noise with gradients; it is the strongest and needs the most VRAM. "
    "Batch-wise: needs a few evaluations and no gradients; sample with delayed guidance afterwards. Search: tries "
    "several seeds and keeps the best; works on quantized models.",
    "target_magnitude": "How small the prompt's pull must become. Lower: fewer copies, but more iterations. 0.007 is "
    "the same as the paper's 0.9 for SD 1.4 at 512×512.",
    "target_units": "Relative: a value means about the same at every resolution (d/√dim). Absolute: the papers' unit "
    "(d).",
    "learning_rate": "Per-sample: size of each update. Higher: fewer iterations, but less natural noise. The paper "
    "uses 0.01 for SD 1.4. For SD 2 the paper uses 0.1, which must be set as 0.006842 on this node.",
    "weight_decay": "Per-sample: makes the noise a little weaker at each update. Higher: the noise stays weaker.",
    "max_iterations": "Per-sample: the highest number of updates. Each costs about as much as three sampling steps. 0 "
    "only measures.",
    "adjustment_strength": "Batch-wise (γ̃): how far each adjustment moves the noise. With higher values the image "
    "leaves the basin sooner, but the noise drifts further from the seed's noise. 0 leaves the noise as it is.",
    "sharpness_radius": "Batch-wise (ρ): the radius around the noise at which the pull is tested. 50 suits SD 1.4 at "
    "512×512. For SD 2 the paper uses 30, which must be set as 2.053 on this node. For larger images, raise the "
    "radius in proportion to the width and height.",
    "adjustments": "Batch-wise (M): the number of adjustments. Each costs about as much as two sampling steps. The "
    "paper uses 2 for SD 1.4 and 4 for SD 2.",
    "candidates": "Search: how many noises are tried for each image. Higher: finds a weaker pull, but takes longer.",
    "sigmas": "The sampler's schedule. The pull is measured at the first value of this schedule, or at the model's "
    "highest noise level if nothing is connected.",
    "constraint": "Per-sample: what keeps the noise natural. Free: only the paper's weight decay. Shell: the noise "
    "never gets stronger or weaker than random noise can be. Sphere: the pattern of the noise changes, but its "
    "strength does not. Chi: the noise is discouraged from growing stronger. Noise that grows less gives cleaner "
    "images.",
    "memorized_threshold": "Change only noise that pulls at least this hard (d/√dim), so that ordinary prompts give "
    "the same images as in KSampler. 0 changes every noise whose pull is above the target. Calibrate Thresholds finds "
    "the value for your model.",
    "checkpointing": "Per-sample: saves VRAM by computing parts of the model twice. Auto: as much as memory "
    "requires. On: for half of the model's blocks. Full: for all blocks, which needs the least VRAM and is slowest. "
    "Off: does not save VRAM, and is fastest.",
}


class NoiseOptimizer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["initial noise", "seed search", "memorization", "adjust noise", "noise optimization"],
            node_id="MG_NoiseOptimizer",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Finds starting noise from which an image soon leaves its attraction basin, the region in "
            "which guidance (CFG) would drag the image towards a training image. Han et al., NeurIPS 2025.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model", tooltip="The model that will sample, with its LoRAs and patches."),
                io.Conditioning.Input("positive", tooltip="The prompt that pulls towards a training image."),
                io.Conditioning.Input("negative", tooltip="The negative prompt that goes into the sampler."),
                io.Latent.Input("latent_image"),
                schema.seed_input("noise_seed"),
                io.Combo.Input("method", options=METHODS, default="per-sample"),
                schema.number("target_magnitude", DEFAULT_TARGET, (0.0, 1000.0, 0.001), finer=True),
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
                io.Noise.Output(
                    display_name="noise", tooltip="For the Deferred-CFG KSampler or SamplerCustomAdvanced."
                ),
                schema.Report.Output(display_name="report", tooltip="The pull before and after, for each image."),
                io.String.Output(
                    display_name="summary",
                    tooltip="The report in words. It names the images that did not reach the target.",
                ),
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
        if relative and settings["method"] != "batch-wise":
            told += size_hint("target_magnitude", settings["target_magnitude"], DEFAULT_TARGET, samples.shape[1:])

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

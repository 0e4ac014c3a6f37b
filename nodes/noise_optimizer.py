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
    "latent_image": "The same latent that goes into the sampler. The node makes noise of the size of this latent.",
    "noise_seed": "The seed of the noise from which the node starts. A seed gives the same noise here as in KSampler.",
    "method": "Per-sample: changes the noise of each image in small steps, with gradients (backward calculations). Of "
    "the three methods, this is the most reliable one for making the prompt's pull small, but it needs the most VRAM. "
    "Batch-wise: runs the model only a few times to change the noise, and uses no gradients, so it needs less VRAM "
    "than per-sample. Batch-wise needs delayed guidance: sample with the Deferred-CFG KSampler, and set its mode to "
    "static. Search: tries several seeds and keeps the noise with which the prompt pulls the image least towards a "
    "training image. This method also works on quantized models.",
    "target_magnitude": "How small the prompt's pull must become. The pull is how far guidance (CFG) would move the "
    "image. Lower: gives fewer copies, but needs more iterations. The paper (Han et al.) uses 0.9 in absolute units, "
    "which is 0.007 in relative units for SD 1.4 at 512×512.",
    "target_units": "The unit of target_magnitude. Relative (d/√dim): the same number has about the same effect at "
    "every resolution. Absolute (d): the unit that the papers use. With this unit, a larger image needs a larger "
    "number.",
    "learning_rate": "Per-sample only: how much each update changes the noise. Higher: needs fewer iterations, but "
    "makes the noise less natural, so images become grainier. The paper (Han et al.) uses 0.01 for SD 1.4. For SD 2 "
    "the paper uses 0.1. On this node, set 0.006842 for SD 2 instead, because the authors' code scales the noise "
    "differently from this node.",
    "weight_decay": "Per-sample only: makes the noise a little weaker at each update, so that the noise does not grow "
    "too strong. Higher: each update weakens the noise more.",
    "max_iterations": "Per-sample only: how many times the node may update the noise before it gives up. Each update "
    "costs about as much as three sampling steps. With 0, the node only measures the prompt's pull and leaves the "
    "noise as it is.",
    "adjustment_strength": "Batch-wise only: how far each adjustment moves the noise (γ̃ in the paper of Han et al.). "
    "Higher: the image gets away from the training image sooner, but the noise becomes less like the seed's noise. "
    "With 0, the node does not change the noise.",
    "sharpness_radius": "Batch-wise only: the node measures the prompt's pull with the current noise and with a "
    "changed noise, to find out how to adjust the current noise. This input sets the distance between these two noises "
    "(ρ in the paper of Han et al.). The value 50 suits SD 1.4 at 512×512. For larger images, raise this value by the "
    "same factor as the width and height: for 1024×1024, set it to 100. For SD 2 the paper uses 30. On this node, set "
    "2.053 for SD 2 instead, because the authors' code scales the noise differently from this node.",
    "adjustments": "Batch-wise only: how many times the node adjusts the noise (M in the paper of Han et al.). Each "
    "adjustment costs about as much as two sampling steps. The paper uses 2 adjustments for SD 1.4 and 4 adjustments "
    "for SD 2.",
    "candidates": "Search only: how many noises the node tries for each image. Higher: the node is more likely to find "
    "noise with which the prompt does not pull the image towards a training image, but takes longer.",
    "sigmas": "The sampler's schedule. The node measures the prompt's pull at the first noise level of this schedule. "
    "If nothing is connected, the node uses the model's highest noise level.",
    "constraint": "Per-sample only: how the node keeps the noise similar to random noise. Free: only weight_decay "
    "keeps the noise similar to random noise, as in the paper of Han et al. Shell: the strength of the noise stays "
    "within the range of random noise. Sphere: the pattern of the noise changes, but its strength does not. Chi: the "
    "noise is drawn back towards the strength of random noise, but may still differ from this strength. Noise that has "
    "grown too strong gives grainy images.",
    "memorized_threshold": "The pull is how far guidance (CFG) would move the image. If the pull with a noise is below "
    "this value, the node leaves this noise as it is. Ordinary prompts then give the same images as in KSampler. With "
    "0, the node changes every noise with which the pull is above target_magnitude. The node Calibrate Thresholds "
    "finds the value for your model.",
    "checkpointing": "Per-sample only: saves VRAM by computing parts of the model twice instead of storing their "
    "results. Auto: the node chooses how many parts to compute twice, and computes more parts twice if your VRAM is "
    "small. On: computes half of the model's parts (blocks) twice. Full: computes all blocks twice, which needs the "
    "least VRAM and takes the longest. Off: computes no block twice, which is the fastest but needs the most VRAM.",
}


class NoiseOptimizer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["initial noise", "seed search", "memorization", "adjust noise", "noise optimization"],
            node_id="MG_NoiseOptimizer",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Inside an attraction basin, guidance (CFG) drags an image towards a training image. This node "
            "finds a starting noise with which the image soon leaves the basin. The methods per-sample and batch-wise "
            "are from Han et al., NeurIPS 2025.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model", tooltip="The model that will sample, with its LoRAs and patches."),
                io.Conditioning.Input("positive", tooltip="The prompt that pulls the image towards a training image."),
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
                    display_name="noise",
                    tooltip="The noise that was found. Connect it to the Deferred-CFG KSampler or "
                    "SamplerCustomAdvanced.",
                ),
                schema.Report.Output(
                    display_name="report",
                    tooltip="For each image: the prompt's pull before the node changed the noise, and the pull after "
                    "the change.",
                ),
                io.String.Output(
                    display_name="summary",
                    tooltip="The report in words. NOT REACHED marks the images whose pull is still above "
                    "target_magnitude.",
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

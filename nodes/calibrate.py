"""MG_Calibrate: thresholds for this checkpoint, size and LoRA, measured with ordinary prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from torch import Tensor

from ..adapter.errors import GuardError, check_images
from ..adapter.hints import distilled_hint
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..adapter.noise import drawn_noise
from ..adapter.sampling import prepare_latent
from ..adapter.schedule import one_step_schedule
from ..drawing.node_views import text_view
from ..methods.prompt_free_check import known_by_heart
from ..methods.self_calibration import PROMPTS, calibrate
from ..mitigation.familiarity import THRESHOLD, ordinary_line, suggested_threshold
from ..references.image_resize import opaque
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

NAME = "Calibrate Thresholds"
TOOLTIPS = {
    "latent_image": "A latent of the size at which you will generate. The node tries each prompt once for each latent "
    "in the batch, each time with another noise. A batch of 4 gives a more reliable result than a batch of 1.",
    "prompts": "Ordinary prompts of the kind you use, one per line. Leave out the titles and captions of famous works, "
    "because the model may have memorized these works. More prompts give a more reliable threshold.",
    "noise_seed": "Seed of the noises that are tried. You can leave this seed as it is, because another seed hardly "
    "changes the result.",
    "images": "Only for Prompt-Free Check: ordinary images that the model made, as a batch. Use 8 or more, if you can "
    "of different prompts. Leave out images that could be copies. The node measures how well the model knows these "
    "images.",
    "vae": "Only for `images`: the model's VAE.",
    "sigmas": "The sampler's schedule. Needed only if sampling does not start at full noise.",
}


class Calibrate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["calibration", "memorization threshold", "target magnitude", "measure model"],
            node_id="MG_Calibrate",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Measures how far guidance (CFG) moves an image when the prompt is ordinary, with your model, "
            "your LoRAs and your image size. From this measurement the node suggests thresholds for the other nodes of "
            "this pack. The measurement costs about as much as one sampling step per prompt.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model", tooltip="The model that will sample, with its LoRAs and patches."),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                io.Latent.Input("latent_image"),
                io.String.Input("prompts", multiline=True, default=PROMPTS),
                schema.seed_input("noise_seed", control=False),
                io.Sigmas.Input("sigmas", optional=True),
                io.Image.Input("images", optional=True),
                io.Vae.Input("vae", optional=True),
            ),
            outputs=[
                io.Float.Output(
                    display_name="ordinary_magnitude",
                    tooltip="How far guidance (CFG) moves an image with an ordinary prompt: the middle value (median) "
                    "over all your prompts.",
                ),
                io.Float.Output(
                    display_name="target_magnitude",
                    tooltip="Use this value as target_magnitude on the Noise Optimizer, and set target_units to "
                    "relative.",
                ),
                io.Float.Output(
                    display_name="memorized_threshold",
                    tooltip="The value for memorized_threshold on every node of this pack that has this input.",
                ),
                io.String.Output(display_name="summary", tooltip="What was measured, prompt by prompt."),
                io.Float.Output(
                    display_name="familiarity_threshold",
                    tooltip="The value for familiarity_threshold on Prompt-Free Check. Without `images`, this is the "
                    "default of that node, which was not measured on your model.",
                ),
            ],
            is_output_node=True,  # so that it can run with nothing connected: its view shows the result
        )

    @classmethod
    @check_inputs
    def execute(
        cls,
        model: ModelPatcher,
        clip: CLIP,
        latent_image: dict,
        prompts: str,
        noise_seed: int,
        sigmas: Tensor | None = None,
        images: Tensor | None = None,
        vae: VAE | None = None,
    ) -> io.NodeOutput:
        lines = [p.strip() for p in prompts.splitlines() if p.strip()]
        if not lines:
            raise GuardError(f"{NAME}: `prompts` is empty. Write ordinary prompts, one per line.")
        latent = prepare_latent(model, latent_image, NAME)
        samples = latent["samples"]
        noise = drawn_noise(samples, noise_seed, latent.get("batch_index"))
        sigmas = one_step_schedule(model, sigmas, NAME)
        made = calibrate(model, clip, lines, latent, noise, sigmas, NAME)
        values = {"target_magnitude": made.target_magnitude, "memorized_threshold": made.memorized_threshold}
        familiar, told = THRESHOLD, []
        if images is not None:
            if vae is None:
                raise GuardError(f"{NAME}: `images` needs `vae`. Connect the VAE of the model, or disconnect `images`.")
            every = list(opaque(check_images(images, NAME)))
            ordinary, _ = known_by_heart(model, clip, vae, every, noise_seed, NAME)
            familiar, told = suggested_threshold(ordinary), [ordinary_line(ordinary)]
            values["familiarity_threshold"] = familiar
        text = "\n".join([*made.lines(lines), *told, *distilled_hint(model)])
        view = LiveView().finish(text_view(text, suggested=values))
        found = made.ordinary_magnitude, made.target_magnitude, made.memorized_threshold
        return io.NodeOutput(*found, text, familiar, ui=view)


NODES = [Calibrate]

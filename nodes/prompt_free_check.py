"""MG_PromptFreeCheck: does the model know a finished image by heart? Needs neither its prompt nor references."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from torch import Tensor

from ..adapter.errors import check_images
from ..adapter.images import clean_and_copies, previews
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..adapter.long_work import interruptible
from ..drawing.familiar_places import familiar_pictures
from ..drawing.node_views import text_view
from ..methods.prompt_free_check import NOISES, known_by_heart
from ..mitigation.familiarity import THRESHOLD, FamiliarityVerdict
from ..references.image_resize import opaque
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

NAME = "Prompt-Free Check"
TOOLTIPS = {
    "familiarity_threshold": "An image counts as memorized if its familiarity is at least this value. Lower: finds "
    "more memorized images, but gives more false alarms. Calibrate Thresholds finds the value for your model, if you "
    "give it ordinary images.",
    "noises": "How often the node restores each image, every time from another noise. Higher: a more reliable result, "
    "but the check takes longer.",
    "noise_seed": "Seed of the noises that are tried. You can leave this seed as it is, because another seed hardly "
    "changes the result.",
}


class PromptFreeCheck(io.ComfyNode):
    LIST = "images"  # all of a list are one check: run once for each, the node would show the last one's verdict alone

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["memorization", "training image", "prompt-free detection", "membership", "plagiarism"],
            node_id="MG_PromptFreeCheck",
            display_name=f"{NAME} (experimental)",
            category=schema.CATEGORY,
            description="Checks whether the model knows finished images by heart. The node needs neither the prompt "
            "nor any references. It covers each image with noise and lets the model restore it without a prompt, "
            "several times. The model restores a memorized image almost the same way every time. The check takes about "
            "as long as 8 sampling steps per image. This node is experimental. Its help page gives the results on this "
            "pack's test model.",
            is_experimental=True,
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input(
                    "model",
                    tooltip="The model that made the images, with its LoRAs. The node can only find images that this "
                    "model knows.",
                ),
                io.Clip.Input("clip", tooltip="The model's text encoder, for the empty prompt."),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                io.Image.Input(
                    "images",
                    tooltip="The images to check: a batch, or a list. Connect them as the model made them, before they "
                    "are upscaled.",
                ),
                schema.number("familiarity_threshold", THRESHOLD, (1.0, 100.0, 0.01), finer=True),
                schema.seed_input("noise_seed", control=False),
                *schema.advanced(io.Int.Input("noises", default=NOISES, min=2, max=64, optional=True)),
            ),
            outputs=[
                io.Float.Output(
                    display_name="familiarity",
                    is_output_list=True,
                    tooltip="One number per image. With 1, the model knows the image no better than its mirror image. "
                    "With 2, the model's restorations of the mirror image differ from each other twice as much.",
                ),
                io.Boolean.Output(
                    display_name="memorized",
                    tooltip="True if any image counts as memorized. Use this output to decide how the workflow goes "
                    "on.",
                ),
                io.String.Output(display_name="summary", tooltip="The result in words, one line per image."),
                io.Image.Output(
                    display_name="clean", is_output_list=True, tooltip="The images without an alarm. Save these."
                ),
                io.Image.Output(
                    display_name="copies", is_output_list=True, tooltip="The images that may be memorized."
                ),
                io.Image.Output(
                    display_name="places",
                    tooltip="Each image beside a grey version of it, with the places in colour that the model knows "
                    "better than their mirror image.",
                ),
            ],
            is_input_list=True,
            is_output_node=True,  # so that it can run with nothing connected: its view shows the result
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    @check_inputs
    def execute(
        cls,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        images: list[Tensor],
        familiarity_threshold: float,
        noise_seed: int,
        noises: int = NOISES,
    ) -> io.NodeOutput:
        batches = [check_images(batch, NAME) for batch in images]
        every = [image for batch in batches for image in opaque(batch)]
        familiarity, places = known_by_heart(model, clip, vae, every, noise_seed, NAME, noises)
        verdict = FamiliarityVerdict(familiarity, familiarity_threshold)
        drawn = familiar_pictures(interruptible(every), places, verdict)
        view = LiveView().finish(text_view(verdict.summary, verdict.alarm))
        return io.NodeOutput(
            verdict.familiarity.tolist(),
            bool(verdict.memorized.any()),
            verdict.summary,
            *clean_and_copies(batches, verdict.memorized),
            drawn,
            ui={**previews([drawn], cls), **view},
        )


NODES = [PromptFreeCheck]

"""MG_PromptCheck: which words of a prompt pull towards a memorized image, and which wording does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..adapter.errors import GuardError
from ..adapter.hints import distilled_hint, size_hint
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..adapter.noise import drawn_noise
from ..adapter.sampling import prepare_latent
from ..adapter.schedule import one_step_schedule
from ..drawing.prompt_view import words_view
from ..methods.prompt_check import FirstStep, check_prompt
from ..mitigation.escape.rules import EscapeRule
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

NAME = "Prompt Check"
TOOLTIPS = {
    "text": "The prompt to check.",
    "latent_image": "A latent of the size at which you will generate. The node tries the prompt once for each latent "
    "in the batch, each time with another noise. A batch of 4 gives a more reliable answer than a batch of 1.",
    "rewordings": "Other wordings of the prompt, one per line. The node ranks these wordings by how hard they pull "
    "towards a memorized image.",
    "noise_seed": "Seed of the noises that are tried. You can leave this seed as it is, because another seed hardly "
    "changes the result.",
    "memorized_threshold": "The prompt's pull is how far guidance (CFG) moves an image. If the pull is at least this "
    "value, the prompt counts as memorized. The node Calibrate Thresholds finds the value for your model and size.",
}


class PromptCheck(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["which word", "prompt analysis", "memorization", "trigger word", "prompt attribution"],
            node_id="MG_PromptCheck",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Measures how hard a prompt pulls towards a memorized image, shows in colour which words pull, "
            "and ranks your rewordings. The check takes about as long as one sampling step per word, plus one more: 21 "
            "steps for a prompt of 20 words, for example. The node also works on quantized models.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model", tooltip="The model that will sample, with its LoRAs and patches."),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                io.Latent.Input("latent_image"),
                io.String.Input("text", multiline=True),
                io.String.Input("rewordings", multiline=True, default="", optional=True),
                schema.seed_input("noise_seed", control=False),
                schema.number("memorized_threshold", EscapeRule.memorized_threshold, (0.0, 10.0, 0.001), finer=True),
            ),
            outputs=[
                io.String.Output(
                    display_name="worst_word", tooltip="The word that pulls hardest towards a memorized image."
                ),
                io.String.Output(
                    display_name="best_prompt",
                    tooltip="If the prompt is not memorized, this output is the prompt itself. If the prompt is "
                    "memorized, this output is the rewording that pulls least. If there are no rewordings, this output "
                    "is the prompt without the word that pulls hardest.",
                ),
                io.Float.Output(
                    display_name="pull",
                    tooltip="How hard the prompt pulls towards a memorized image: the mean over all noises that the "
                    "node tried.",
                ),
                io.Float.Output(
                    display_name="scores",
                    is_output_list=True,
                    tooltip="How hard each word pulls towards a memorized image: one number per word, in the order of "
                    "the prompt.",
                ),
                io.String.Output(display_name="summary", tooltip="What was measured, word by word."),
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
        text: str,
        noise_seed: int,
        memorized_threshold: float,
        rewordings: str = "",
    ) -> io.NodeOutput:
        if not text.strip():
            raise GuardError(f"{NAME}: `text` is empty. Write the prompt to check.")
        latent = prepare_latent(model, latent_image, NAME)
        samples = latent["samples"]
        noise = drawn_noise(samples, noise_seed, latent.get("batch_index"))
        step = FirstStep(model, clip, noise, one_step_schedule(model, None, NAME), NAME)
        found = check_prompt(step, text, [line.strip() for line in rewordings.splitlines() if line.strip()])
        hints = distilled_hint(model) or size_hint(
            "memorized_threshold", memorized_threshold, EscapeRule.memorized_threshold, samples.shape[1:]
        )
        memorized = found.pull >= memorized_threshold
        best = found.alternatives[0] if memorized and found.alternatives else (found.pull, text)
        view = words_view(found, memorized_threshold, hints)
        summary = "\n".join([line for line in (view["warning"], view["headline"], *view["notes"]) if line])
        worst = found.word(found.ranked[0]) if found.words else ""
        return io.NodeOutput(worst, best[1], found.pull, found.shares, summary, ui=LiveView().finish(view))


NODES = [PromptCheck]

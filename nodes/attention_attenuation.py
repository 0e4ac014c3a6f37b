"""MG_AttentionAttenuation: pay less attention to the words that trigger a memorized image, as a model patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..adapter.input_checks import check_inputs
from ..methods.attenuation import add_attenuation, add_repulsion
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

NAME = "Cross-Attention Attenuation"
ATTENUATION, GUARD = "attenuation", "GUARD"
THRESHOLDS = {ATTENUATION: 0.01, GUARD: 0.1}  # τ, as published
REPULSION = 2.0  # of GUARD's first step, as published
TOOLTIPS = {
    "model": "The model that the sampler will use: SD 1.x, SD 2.x, SDXL, or another UNet with cross-attention.",
    "variant": "Attenuation: the model pays less attention to the trigger words, which are words that draw more "
    "attention than the average word. GUARD: does the same as attenuation, and also pushes the image away from what "
    "the model would make without attenuation. This push is strongest in the first steps. With GUARD, the model runs "
    "three times per step. With attenuation, it runs twice per step, as in KSampler.",
    "factor": "A trigger word draws more attention than the average word. The model gives each word an attention score "
    "(the logit), and the node multiplies the score of a trigger word by this factor. Lower: gives fewer copies, but "
    "the word has less effect on the image. A factor of 1 changes nothing.",
}


class AttentionAttenuation(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["GUARD", "trigger word", "cross attention", "attention", "memorization"],
            node_id="MG_AttentionAttenuation",
            display_name=f"{NAME} (experimental)",
            category=schema.CATEGORY,
            description="Finds the words of a prompt that get more attention from the model than the average word "
            "does. Such words often trigger a memorized image, so the node makes the model pay less attention to them. "
            "The node changes the images of every prompt, not only of memorized prompts. This node is experimental. "
            "Its help page gives the results on this pack's test model.",
            is_experimental=True,
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model"),
                io.Combo.Input("variant", options=list(THRESHOLDS), default=ATTENUATION),
                schema.number("factor", 0.3, (0.0, 1.0, 0.01)),
            ),
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The patched model. Connect it to the sampler. Bypass the node to sample with the "
                    "unpatched model.",
                )
            ],
        )

    @classmethod
    @check_inputs
    def execute(cls, model: ModelPatcher, variant: str, factor: float) -> io.NodeOutput:
        if factor == 1.0:
            return io.NodeOutput(model)
        patched = add_attenuation(model, THRESHOLDS[variant], factor, NAME)
        return io.NodeOutput(add_repulsion(patched, REPULSION, NAME) if variant == GUARD else patched)


NODES = [AttentionAttenuation]

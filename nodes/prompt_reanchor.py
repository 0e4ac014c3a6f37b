"""MG_PromptReanchor: guide towards another wording of a memorized prompt (PRSS), as a model patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..adapter.errors import GuardError
from ..adapter.hints import distilled_hint, negative_hint_behind
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..drawing.node_views import View, text_view
from ..methods.reanchoring import Reanchoring, ReanchoringRun, add_reanchoring
from ..mitigation.wording import counted
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

NAME = "Prompt Re-anchoring (PRSS)"
TOOLTIPS = {
    "model": "The model that the sampler will use. Other patches on the model stay active.",
    "reworded": "Your other wording of the sampler's prompt, from a CLIP Text Encode of its own. Prompt Check shows "
    "which wording pulls least towards a memorized image.",
    "memorized_threshold": "The pull is how far guidance (CFG) would move the image. If the prompt's pull at the first "
    "step is at least this value, the node changes the image. The default is the value that the PRSS paper uses for SD "
    "1.4. Calibrate Thresholds finds the value for your model and size.",
    "rewording_threshold": "The pull of your other wording is how far guidance (CFG) would move the image if this "
    "wording were the prompt. In steps in which this pull is below rewording_threshold, the other wording simply "
    "replaces the prompt. In steps in which this pull is above rewording_threshold, the node also pushes the image "
    "away from what the prompt asks for. Keep rewording_threshold below memorized_threshold. In the PRSS paper, "
    "rewording_threshold is 0.6 times memorized_threshold.",
}


class PromptReanchor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["PRSS", "rewording", "prompt rewrite", "re-anchor", "memorization"],
            node_id="MG_PromptReanchor",
            display_name=NAME,
            category=schema.CATEGORY,
            description="If the sampler's prompt is memorized, then during sampling this node replaces it with another "
            "wording that you give. If the other wording also pulls towards a memorized image, the node also pushes "
            "your image away from what the memorized prompt asks for. An image whose prompt does not pull towards a "
            "memorized image stays as it is. If the node changes an image, the model runs at most once more per step.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model"),
                io.Conditioning.Input("reworded"),
                schema.number("memorized_threshold", 0.039, (0.0, 10.0, 0.001), finer=True),
                *schema.advanced(schema.number("rewording_threshold", 0.0234, (0.0, 10.0, 0.001), finer=True)),
            ),
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The patched model. Connect it to the sampler. Bypass the node to sample with the "
                    "unpatched model.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @check_inputs
    def execute(
        cls, model: ModelPatcher, reworded: list, memorized_threshold: float, rewording_threshold: float = 0.0234
    ) -> io.NodeOutput:
        if rewording_threshold >= memorized_threshold:
            raise GuardError(
                f"{NAME}: `rewording_threshold` is {rewording_threshold:g}, which is not below `memorized_threshold` "
                f"({memorized_threshold:g}). Set it to {0.6 * memorized_threshold:.4g}, as the paper does."
            )
        node, live = cls.hidden.unique_id, LiveView(cls.hidden.unique_id)

        def on_end(run: ReanchoringRun) -> None:
            live.finish(_view(run, [*distilled_hint(model), *negative_hint_behind(node, None)]))

        plan = Reanchoring(reworded, memorized_threshold, rewording_threshold, on_end, NAME)
        return io.NodeOutput(add_reanchoring(model, plan), ui=live.ui)


def _view(run: ReanchoringRun, hints: list[str]) -> View:
    if run.left_to:
        warning = (
            f"Nothing was changed, because {run.left_to} leaves no guidance to change. Use KSampler or CFGGuider with "
            "a `cfg` above 1."
        )
        return text_view("Nothing was changed.", warning)
    count = int(run.acts.sum())
    if not count:
        return text_view("\n".join(["No image was changed: the prompt pulls less than memorized_threshold.", *hints]))
    whole = counted(len(run.acts), "image")
    return text_view("\n".join([f"The other wording was used for {count} of {whole}.", *hints]))


NODES = [PromptReanchor]

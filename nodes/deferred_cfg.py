"""MG_DeferredCFG: deferred CFG as a model patch, for any sampler or detailer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..adapter.hints import negative_hint_behind
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..drawing.node_views import escape_view, text_view
from ..methods.deferred_cfg.patch import add_deferred_cfg
from ..methods.deferred_cfg.plan import plan_from_inputs
from ..mitigation.escape.curve import EscapeCurve
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

NAME = "Deferred CFG"


class DeferredCFG(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["delayed CFG", "late guidance", "dynamic CFG", "memorization"],
            node_id="MG_DeferredCFG",
            display_name="Deferred CFG (model patch)",
            category=schema.CATEGORY,
            description="With this node, any sampler that uses the model delays guidance (CFG) for as long as guidance "
            "would drag an image towards a training image. As long as guidance would drag an image in this way, this "
            "image is inside an attraction basin. The node works with KSampler (Advanced), detailers and tiled "
            "samplers. Use this node in workflows in which you cannot replace the sampler with the Deferred-CFG "
            "KSampler.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that the sampler will use. Other patches on the model stay active."
                ),
                *schema.mode_inputs(),
                schema.curve_input(),
                schema.null_input(),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The model, with which any sampler now delays guidance (CFG). Bypass the node to sample "
                    "without this delay.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @check_inputs
    def execute(cls, model: ModelPatcher, **deferral: Any) -> io.NodeOutput:
        node, live = cls.hidden.unique_id, LiveView(cls.hidden.unique_id)
        null = deferral.get("null")

        def on_end(curve: EscapeCurve) -> None:
            hints = negative_hint_behind(node, null) if curve.measured else []
            live.finish(escape_view(curve, done=True, notes=hints))

        plan = plan_from_inputs(
            **deferral,
            node=NAME,
            on_end=on_end,
            on_step=lambda curve: live.show(lambda: escape_view(curve, done=False)),
        )
        if plan is None:
            live.finish(text_view("Off: the model is not changed."))
        return io.NodeOutput(model if plan is None else add_deferred_cfg(model, plan), ui=live.ui)


NODES = [DeferredCFG]

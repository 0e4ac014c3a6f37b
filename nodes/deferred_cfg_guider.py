"""MG_DeferredCFGGuider: deferred CFG as a guider, for SamplerCustomAdvanced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..adapter.hints import negative_hint
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..adapter.sampling import cfg_guider
from ..drawing.node_views import escape_view, text_view
from ..methods.deferred_cfg.patch import add_deferred_cfg
from ..methods.deferred_cfg.plan import plan_from_inputs
from ..mitigation.escape.curve import EscapeCurve
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

NAME = "Deferred-CFG Guider"


class DeferredCFGGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["delayed CFG", "late guidance", "CFGGuider", "memorization"],
            node_id="MG_DeferredCFGGuider",
            display_name=NAME,
            category=schema.CATEGORY,
            description="A CFGGuider that delays guidance (CFG) for as long as guidance would drag an image towards a "
            "training image. As long as guidance would drag an image in this way, this image is inside an attraction "
            "basin. Connect this guider to SamplerCustomAdvanced.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model used for denoising. Other patches on the model stay active."
                ),
                io.Conditioning.Input("positive", tooltip="What you want in the image."),
                io.Conditioning.Input("negative", tooltip="What you do not want in the image."),
                schema.cfg_input(),
                *schema.mode_inputs(),
                schema.curve_input(),
                schema.null_input(),
            ],
            outputs=[
                io.Guider.Output(display_name="guider", tooltip="The guider. Connect it to SamplerCustomAdvanced.")
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    @check_inputs
    def execute(cls, model: ModelPatcher, positive: list, negative: list, cfg: float, **deferral: Any) -> io.NodeOutput:
        live = LiveView(cls.hidden.unique_id)
        hints = negative_hint(cls.hidden.prompt, cls.hidden.unique_id, deferral.get("null"))

        def on_end(curve: EscapeCurve) -> None:
            live.finish(escape_view(curve, done=True, notes=hints if curve.measured else []))

        plan = plan_from_inputs(
            **deferral,
            node=NAME,
            on_end=on_end,
            on_step=lambda curve: live.show(lambda: escape_view(curve, done=False)),
        )
        if plan is None:
            live.finish(text_view("Off: same as CFGGuider."))
        patched = model if plan is None else add_deferred_cfg(model, plan)
        return io.NodeOutput(cfg_guider(patched, positive, negative, cfg), ui=live.ui)


NODES = [DeferredCFGGuider]

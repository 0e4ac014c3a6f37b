"""MG_PlotCurve: draw escape curves."""

from __future__ import annotations

from comfy_api.latest import io

from ..adapter.input_checks import check_inputs
from ..drawing.escape_plot import QUANTITIES, plot_curves
from ..mitigation.escape.curve import EscapeCurve
from . import schema

MORE = ["curve_2", "curve_3", "curve_4"]


class PlotCurve(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["graph", "chart", "escape curve", "guidance magnitude"],
            node_id="MG_PlotCurve",
            display_name="Plot Escape Curve",
            category=schema.CATEGORY,
            description="Draws one to four escape curves. An escape curve shows how hard the prompt pulls each image "
            "towards a training image at each step. The plot also shows when this pull ends, and which steps ran with "
            "CFG.",
            inputs=[
                schema.Curve.Input(
                    "curve", tooltip="Connect a curve from the Basin-Escape Detector or the Deferred-CFG KSampler."
                ),
                *(schema.Curve.Input(k, optional=True, tooltip="Another curve, in a colour of its own.") for k in MORE),
                io.Combo.Input(
                    "quantity",
                    options=QUANTITIES,
                    default="pull",
                    optional=True,
                    tooltip="What the curves show. Pull: how far guidance (CFG) would move the image. The rule `sharp "
                    "drop` of the Deferred-CFG nodes uses the pull to decide when guidance can start. Guidance "
                    "magnitude (d/√dim): how much the model's prediction with the prompt differs from its prediction "
                    "without the prompt. This difference grows during sampling, even for ordinary prompts.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The plot: 896×512 pixels, on a dark background.")],
        )

    @classmethod
    @check_inputs
    def execute(
        cls,
        curve: EscapeCurve,
        curve_2: EscapeCurve | None = None,
        curve_3: EscapeCurve | None = None,
        curve_4: EscapeCurve | None = None,
        quantity: str = "pull",
    ) -> io.NodeOutput:
        curves = [c for c in (curve, curve_2, curve_3, curve_4) if c is not None]
        return io.NodeOutput(plot_curves(curves, quantity))


NODES = [PlotCurve]

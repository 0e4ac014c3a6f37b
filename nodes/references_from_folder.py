"""MG_ReferencesFromFolder: references from training images and their caption files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..adapter.errors import GuardError
from ..adapter.folders import CHOOSE, input_folder, input_folders
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..drawing.node_views import text_view
from ..mitigation.references.reference_set import Metric
from ..references.builder import ReferenceSetBuilder
from ..references.feature_extraction import feature_extractor
from ..references.image_folder import collect, fingerprint, list_folder
from ..references.image_resize import pixel_size
from ..references.report import report
from . import schema

if TYPE_CHECKING:
    from comfy.sd import VAE

NAME = "References from Folder"
TOOLTIPS = {
    "folder": "A folder in ComfyUI's input directory, with png, jpg or webp images. Caption files (.txt or .caption) "
    "beside them are optional. Press R after adding a folder.",
    "width": "Width of the images you will generate. References are scaled to fill this size and cropped at the "
    "centre, so that latents can be compared. The descriptor metric does not use this size.",
    "height": "Height of the images you will generate.",
    "subfolders": "Also read the images in subfolders, such as 10_mystyle in a training folder.",
    "size_of": "Connect the latent that goes into the sampler. The node then takes width and height from this latent.",
}


class ReferencesFromFolder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["training images", "dataset", "lora images", "folder of images"],
            node_id="MG_ReferencesFromFolder",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Reads the images of a folder, with their captions, as references: training images of a LoRA "
            "or checkpoint, or works that you must not copy. The report says what was left out, and which captions and "
            "images occur more than once.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Combo.Input("folder", options=[CHOOSE, *input_folders()], default=CHOOSE),
                *schema.metric_inputs()[:1],
                io.Int.Input("width", default=512, min=16, max=16384, step=8),
                io.Int.Input("height", default=512, min=16, max=16384, step=8),
                io.Boolean.Input("subfolders", default=True),
                *schema.metric_inputs()[1:],
                io.Latent.Input("size_of", optional=True),
            ),
            outputs=[
                schema.References.Output(
                    display_name="references",
                    tooltip="The set of references. Connect it to AMG Guidance or Copy Check.",
                ),
                io.Int.Output(display_name="count", tooltip="How many images became references."),
                io.String.Output(
                    display_name="report",
                    tooltip="What was left out and why, and which images and captions are duplicates. Connect this "
                    "report to Preview Any.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool:
        return True  # `execute` says what is wrong: a branch that fails here is left out without a word

    @classmethod
    def fingerprint_inputs(cls, folder: str, subfolders: bool = True, **_: Any) -> str:
        return fingerprint(list_folder(input_folder(folder, NAME), subfolders))

    @classmethod
    @check_inputs
    def execute(
        cls,
        folder: str,
        metric: Metric,
        width: int,
        height: int,
        subfolders: bool = True,
        vae: VAE | None = None,
        descriptor: Any = None,
        size_of: dict | None = None,
    ) -> io.NodeOutput:
        listed = list_folder(input_folder(folder, NAME), subfolders)
        if not listed.images:
            more = "" if subfolders else ", or turn on subfolders"
            raise GuardError(f"{NAME}: `folder` {folder!r} holds no images. Put png, jpg or webp files into it{more}.")
        size = (width, height) if size_of is None else pixel_size(size_of, vae, NAME)
        extractor = feature_extractor(metric, NAME, vae=vae, descriptor=descriptor, size=size)
        builder = ReferenceSetBuilder(extractor, NAME, len(listed.images))
        view = LiveView()
        found = collect(listed, builder, max(size), tell=lambda text: view.finish(text_view("Stopped.", text)))
        references = builder.finish()
        text = report(references, builder.duplicate_features, found.left_out, found.damaged, found.resumed)
        found.kept.remove()
        return io.NodeOutput(references, len(references), text, ui=view.finish(text_view(text)))


NODES = [ReferencesFromFolder]

"""MG_ReferencesFromImages and MG_ReferencesFromLatents: references from the workflow itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..adapter.errors import GuardError, check_images, check_latent
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..adapter.long_work import interruptible, progress
from ..drawing.node_views import text_view
from ..mitigation.references.reference_set import Metric
from ..references.builder import ReferenceSetBuilder, caption_lines
from ..references.feature_extraction import FeatureExtractor, feature_extractor
from ..references.image_resize import opaque, pixel_size
from ..references.report import report
from . import schema

if TYPE_CHECKING:
    from comfy.sd import VAE

FROM_IMAGES, FROM_LATENTS = "References from Images", "References from Latents"


def captions_input() -> io.String.Input:
    return io.String.Input(
        "captions",
        default="",
        multiline=True,
        tooltip="The captions that the model was trained with, one per line, in the order of the batch. If you write "
        "only one line, the whole batch gets this caption. Only deduplication on AMG Guidance needs captions.",
    )


def outputs() -> list[io.Output]:
    return [
        schema.References.Output(
            display_name="references", tooltip="The set of references. Connect it to AMG Guidance or Copy Check."
        ),
        io.String.Output(
            display_name="report",
            tooltip="Says what the set holds, and which references are in the set more than once.",
        ),
    ]


def finished(builder: ReferenceSetBuilder, live: LiveView) -> io.NodeOutput:
    references = builder.finish()
    text = report(references, duplicate_features=builder.duplicate_features)
    return io.NodeOutput(references, text, ui=live.finish(text_view(text)))


class ReferencesFromImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["training images", "dataset", "avoid images"],
            node_id="MG_ReferencesFromImages",
            display_name=FROM_IMAGES,
            category=schema.CATEGORY,
            description="Makes references from the images of a batch, for example from one work that you must not "
            "copy.",
            inputs=[
                io.Image.Input("images", tooltip="The images, all of the same size."),
                captions_input(),
                *schema.metric_inputs(),
                io.Latent.Input(
                    "size_of",
                    optional=True,
                    tooltip="Connect the latent that goes into the sampler. The node then scales the images to fill "
                    "the size of this latent, and crops them at the centre. If nothing is connected, the images keep "
                    "their own size, which must be the size of the images that you generate.",
                ),
            ],
            outputs=outputs(),
        )

    @classmethod
    @check_inputs
    def execute(
        cls,
        images: Tensor,
        captions: str,
        metric: Metric,
        vae: VAE | None = None,
        descriptor: Any = None,
        size_of: dict | None = None,
    ) -> io.NodeOutput:
        images = opaque(check_images(images, FROM_IMAGES))
        lines = caption_lines(captions, len(images), FROM_IMAGES, "images")
        size = None if size_of is None else pixel_size(size_of, vae, FROM_IMAGES)
        extractor = feature_extractor(metric, FROM_IMAGES, vae=vae, descriptor=descriptor, size=size)
        builder, bar = ReferenceSetBuilder(extractor, FROM_IMAGES, len(images)), progress(len(images))
        for i, image in enumerate(interruptible(images)):
            builder.add(builder.encoded(image), f"image {i + 1}", lines[i])
            bar.update_absolute(i + 1)
        return finished(builder, LiveView())


class ReferencesFromLatents(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["training latents", "dataset", "avoid latents"],
            node_id="MG_ReferencesFromLatents",
            display_name=FROM_LATENTS,
            category=schema.CATEGORY,
            description="Makes references from latents, for example from earlier results that came out as copies. The "
            "references are compared as latents, so this node needs neither a VAE nor a descriptor.",
            inputs=[
                io.Latent.Input("latents", tooltip="The latents. They must have the size at which you will sample."),
                captions_input(),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Connect a VAE only if Copy Check should show the nearest reference. The set then keeps a "
                    "small image of each latent.",
                ),
            ],
            outputs=outputs(),
        )

    @classmethod
    @check_inputs
    def execute(cls, latents: dict, captions: str, vae: VAE | None = None) -> io.NodeOutput:
        samples = check_latent(latents, FROM_LATENTS, "latents").float()
        if not torch.isfinite(samples).all():
            raise GuardError(f"{FROM_LATENTS}: `latents` holds NaN or infinite values. Check what made them.")
        lines = caption_lines(captions, len(samples), FROM_LATENTS, "latents")
        builder = ReferenceSetBuilder(FeatureExtractor("latent", lambda image: image), FROM_LATENTS, len(samples))
        bar = progress(len(samples))
        for i, latent in enumerate(interruptible(samples)):
            image = None if vae is None else opaque(vae.decode(latent[None]).flatten(0, -4)[:1])[0]
            builder.add(builder.encoded_feature(latent, image), f"latent {i + 1}", lines[i])
            bar.update_absolute(i + 1)
        return finished(builder, LiveView())


NODES = [ReferencesFromImages, ReferencesFromLatents]

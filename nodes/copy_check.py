"""MG_CopyCheck: is an image too close to one of the references?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io
from torch import Tensor

from ..adapter.errors import check_images
from ..adapter.hints import steered_note
from ..adapter.images import clean_and_copies, previews
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..adapter.long_work import interruptible
from ..drawing.copy_comparison import side_by_side
from ..drawing.match_overlay import match_pictures, nothing_to_colour
from ..drawing.node_views import text_view
from ..drawing.similarity_histogram import LEAST, histogram
from ..mitigation.copy_verdict import CopyVerdict
from ..mitigation.references.reference_set import ReferenceSet
from ..mitigation.references.score_normalisation import background_similarity
from ..mitigation.references.similarity import nearest_similarity
from ..references.background import check_background, overlap_warning
from ..references.feature_extraction import FeaturesToCompare
from ..references.image_resize import opaque
from ..references.match_maps import matched_pair
from . import schema

if TYPE_CHECKING:
    from comfy.sd import VAE

NAME = "Copy Check"
LATENT_THRESHOLD = 0.85  # lab checkpoint: 4 copies 0.993 … 0.996, 76 other images 0.28 … 0.76
TURN_ON = "Turn on draw_matches to see here which places match."
NEEDS_SSCD = "Only references that were made with SSCD show which places match."
TOOLTIPS = {
    "threshold": "For references with the descriptor metric: an image counts as a copy if its similarity to a "
    "reference is above this value. With SSCD, papers on memorization use 0.5. With a threshold of 0.75, about 90 % of "
    "the alarms are real copies, as Meta, which made SSCD, measured. Lower: finds more copies, but gives more false "
    "alarms. With CLIP vision or SigLIP, use 0.9 or more. With DINOv2, use 0.8 or more. These networks give a high "
    "similarity even to images that are no copies.",
    "latent_threshold": "For references with the latent metric: an image counts as a copy if its similarity to a "
    "reference is above this value. Lower: finds more copies, but gives more false alarms. This metric finds copies "
    "that have the same composition as a reference, even if the copies are mirrored or moved by a few percent. It does "
    "not find cropped copies.",
    "nl2_threshold": "For references with the nL2 metric: the node divides the distance between an image and its "
    "nearest reference by half the mean distance to the 50 nearest references. If this ratio is below nl2_threshold, "
    "the image counts as a copy. A ratio of 0 means the same image. The paper of Chen et al. uses a limit of 1.4. "
    "Higher: finds more copies, but gives more false alarms.",
    "vae": "Only for references with the latent metric: the VAE with which the references were made.",
    "background": "Only for references with the descriptor metric: a second set of references. Make this set from "
    "ordinary images, and use the same descriptor. Put none of the references into this second set. Use a few hundred "
    "images or more. Some images are similar to almost every image, which gives false alarms. With this second set, "
    "the node finds the three images of the set that are most similar to a checked image, and takes the mean of these "
    "three similarities. The node subtracts this mean from the similarity of the checked image to its nearest "
    "reference. `threshold` then applies to the difference, so set a lower `threshold` than without `background`. "
    "Start with a `threshold` of 0.3. For an image that is no copy, the difference is about 0, because such an image "
    "is about as similar to the background as to the references. We have not measured which `threshold` is best with a "
    "background.",
    "draw_matches": "Only for references that were made with SSCD: if draw_matches is on, the output match_map shows "
    "in colour which places of an image match its nearest reference. This costs two more passes of SSCD per image.",
}


class CopyCheck(io.ComfyNode):
    LIST = "images"  # all of a list are one check: run once for each, the node would show the last one's verdict alone

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["plagiarism", "duplicate", "too similar", "training image", "SSCD", "copyright check"],
            node_id="MG_CopyCheck",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Compares finished images with a set of references and shows the nearest reference beside each "
            "image. The node knows only these references, so an image without an alarm can still be a copy of "
            "something else.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Image.Input("images", tooltip="The images to check, of any size: a batch, or a list."),
                schema.References.Input(
                    "references",
                    tooltip="The references to compare with. How the node compares images depends on the `metric` that "
                    "was chosen when the references were made.",
                ),
                schema.number("threshold", 0.5, (-1.0, 1.0, 0.01)),
                schema.number("latent_threshold", LATENT_THRESHOLD, (-1.0, 1.0, 0.01)),
                schema.number("nl2_threshold", 1.4, (0.0, 2.0, 0.01)),
                io.Vae.Input("vae", optional=True),
                schema.References.Input("background", optional=True),
                *schema.advanced(io.Boolean.Input("draw_matches", default=False, optional=True)),
            ),
            outputs=[
                io.Float.Output(
                    display_name="similarity",
                    is_output_list=True,
                    tooltip="One number per image: its similarity to the nearest reference. A similarity of 1 means "
                    "the same image. With the nL2 metric, the number is never above 0: 0 means the same image, and the "
                    "further the number is below 0, the less similar the image is. This number is the ratio that the "
                    "tooltip of nl2_threshold explains, with a minus sign in front. With the descriptor metric and a "
                    "connected `background`, the node has already subtracted the similarity to the background from the "
                    "number.",
                ),
                io.Image.Output(display_name="nearest", tooltip="The nearest reference of each image."),
                io.Boolean.Output(
                    display_name="is_copy",
                    tooltip="True if any image counts as a copy. Use this output to decide how the workflow goes on.",
                ),
                io.String.Output(display_name="summary", tooltip="The result in words, one line per image."),
                io.Image.Output(display_name="comparison", tooltip="Each image beside its nearest reference."),
                io.Image.Output(
                    display_name="clean", is_output_list=True, tooltip="The images without an alarm. Save these."
                ),
                io.Image.Output(display_name="copies", is_output_list=True, tooltip="The images that may be copies."),
                io.Image.Output(
                    display_name="match_map",
                    tooltip="Each image beside its nearest reference, with the matching places in colour. To get this "
                    "picture, turn on draw_matches.",
                ),
            ],
            is_input_list=True,
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    @check_inputs
    def execute(
        cls,
        images: list[Tensor],
        references: ReferenceSet,
        threshold: float,
        latent_threshold: float,
        nl2_threshold: float,
        vae: VAE | None = None,
        background: ReferenceSet | None = None,
        draw_matches: bool = False,
    ) -> io.NodeOutput:
        batches = [check_images(batch, NAME) for batch in images]
        every = [image for batch in batches for image in opaque(batch)]
        if background is not None:
            check_background(background, references, NAME)
        look = FeaturesToCompare(references, vae, NAME)
        kept = None if background is None else list(look.of_all(every))  # compared once more: two embeddings an image
        closeness, rows, placements = nearest_similarity(references, kept or look.of_all(every))
        limit = {"latent": latent_threshold, "nL2": -nl2_threshold, "descriptor": threshold}[references.metric]
        warnings, subtracted = [look.warning] if look.warning else [], None
        if background is not None and kept is not None:
            placed = torch.stack([views[i] for views, i in zip(kept, placements.tolist(), strict=True)])
            subtracted = background_similarity(placed, background)
            warnings += [warning for warning in [overlap_warning(references, rows, background)] if warning]
        verdict = CopyVerdict(references, closeness, rows, limit, subtracted)
        thumbnails = references.thumbnails
        shown = None if thumbnails is None else thumbnails[rows].float() / 255
        drawn = side_by_side(interruptible(every), shown, *verdict.bars, verdict.lines)
        below = [histogram(*verdict.distribution)] if len(every) >= LEAST else []
        steered = steered_note(cls.hidden.prompt, cls.hidden.unique_id)
        network = look.extractor.descriptor
        unfit = network.threshold_note(threshold) if network and background is None else []
        summary = verdict.summary([*warnings, *unfit, *steered])
        if isinstance(cls.hidden.extra_pnginfo, dict):  # what ComfyUI writes into the images that it saves
            cls.hidden.extra_pnginfo["memorization_guard"] = summary
        alarm = [f"{verdict.count}."] if verdict.copies.any() else []
        view = LiveView().finish(text_view(summary, " ".join([*alarm, *warnings])))
        return io.NodeOutput(
            verdict.sigma.tolist(),
            torch.zeros(len(every), 64, 64, 3) if shown is None else shown,
            bool(verdict.copies.any()),
            summary,
            drawn,
            *clean_and_copies(batches, verdict.copies),
            _match_map(look, every, verdict, placements.tolist()) if draw_matches else nothing_to_colour(TURN_ON),
            ui={**previews([drawn, *below], cls), "text": (summary,), **view},
        )


def _match_map(look: FeaturesToCompare, images: list[Tensor], verdict: CopyVerdict, placements: list[int]) -> Tensor:
    network = look.extractor.descriptor
    if network is None or network.places is None:
        return nothing_to_colour(NEEDS_SSCD)
    network.load()
    found = zip(images, verdict.rows.tolist(), placements, strict=True)
    pairs = (matched_pair(look.references, network, image, row, bool(placed)) for image, row, placed in found)
    words = [line + "  (mirrored)" * placed for line, placed in zip(verdict.lines, placements, strict=True)]
    return match_pictures(interruptible(images), pairs, *verdict.bars, words)


NODES = [CopyCheck]

"""MG_LoRAAudit: which LoRA, or which epoch of one, copies its training images, and from which strength on?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..adapter.conditioning import unweighted
from ..adapter.errors import GuardError
from ..adapter.folders import REFERENCES, model_folder
from ..adapter.identity import graph_identity, networks_fingerprint, tensor_identity
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..adapter.lora import lora_files
from ..adapter.sampling import prepare_latent
from ..adapter.schedule import sampler_names, scheduler_names
from ..drawing.audit_plot import plot_audit
from ..drawing.audit_sheet import contact_sheets
from ..drawing.node_views import text_view
from ..methods.lora_audit import AuditPlan, AuditRun, Prompt, parse_strengths
from ..mitigation.copy_rates import LoraAudit
from ..mitigation.references.reference_set import ReferenceSet
from ..mitigation.wording import counted
from ..references.kept_images import ImageLook, KeptImages
from . import schema
from .copy_check import LATENT_THRESHOLD
from .copy_check import TOOLTIPS as COPY_CHECK

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

NAME = "LoRA Copy Audit"
PER_IMAGE = ("samples", "noise_mask", "batch_index")
FROM_MODEL = ("model", "clip", "vae")
TOOLTIPS = {
    **COPY_CHECK,
    "vae": "The VAE that decodes the images. If the metric of the references (the way in which images are compared) is "
    "latent, make the references with the same VAE.",
    "references": "The LoRA's training images, for example from References from Folder. How the node compares images "
    "depends on the `metric` that was chosen when the references were made.",
    "latent_image": "The size of the images. The node samples one image at a time, whatever the batch size is.",
    "loras": "One LoRA file per line, written as in the list of Load LoRA. my_lora-* stands for all files whose names "
    "begin with my_lora-, sorted by their numbers. Use a line with * to audit all epochs of one training.",
    "strengths": "The strengths to try, separated by commas. Each strength is used for the model and for the text "
    "encoder. Strength 0 means the checkpoint without a LoRA. With more strengths, the run takes longer.",
    "captions": "The prompts from which the node makes images, one per line. If this field is empty, the node uses the "
    "captions of the references, because these captions are the prompts with which a LoRA is most likely to copy its "
    "training images.",
    "most_captions": "The node uses at most this many captions, which it picks at even distances from the whole list. "
    "Higher: gives more certain results, but takes longer.",
    "seeds": "How many images are sampled for each caption at each strength. Higher: gives more certain results, but "
    "takes longer.",
    "seed": "The first seed. The next seeds are the numbers that follow it. Every LoRA and every strength gets the "
    "same seeds.",
    "negative_text": "The negative prompt of all images.",
    "steps": "The number of denoising steps.",
    "cfg": "Guidance scale (CFG), as in KSampler. Use the same value as for your own images, because a higher value "
    "gives more copies.",
    "sampler_name": "The algorithm used when sampling, as in KSampler.",
    "scheduler": "How the noise is removed over the steps, as in KSampler.",
}


class LoRAAudit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["epoch", "overfitting", "overtrained", "memorization", "LoRA test", "XY plot", "compare"],
            node_id="MG_LoRAAudit",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Makes images from training captions with several LoRAs, or with several epochs of one LoRA, "
            "at several strengths. Counts the images that may be copies of training images, so that you see which "
            "epoch to use, and up to which strength. If you stop the run, the next run continues with the first image "
            "that is missing.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model", tooltip="The checkpoint, without the LoRAs that you audit."),
                io.Clip.Input("clip", tooltip="The checkpoint's text encoder."),
                io.Vae.Input("vae"),
                schema.References.Input("references"),
                io.Latent.Input("latent_image"),
                io.String.Input("loras", multiline=True, default=""),
                io.String.Input("strengths", default="0.6, 0.8, 1.0"),
                io.String.Input("captions", multiline=True, default=""),
                io.Int.Input("most_captions", default=10, min=1, max=10000),
                io.Int.Input("seeds", default=2, min=1, max=1000),
                schema.seed_input("seed", control=False),
                io.Int.Input("steps", default=20, min=1, max=10000),
                schema.cfg_input(),
                io.Combo.Input("sampler_name", options=sampler_names(), default="euler"),
                io.Combo.Input("scheduler", options=scheduler_names(), default="normal"),
                io.String.Input("negative_text", multiline=True, default=""),
                schema.number("threshold", 0.5, (-1.0, 1.0, 0.01)),
                schema.number("latent_threshold", LATENT_THRESHOLD, (-1.0, 1.0, 0.01)),
                schema.number("nl2_threshold", 1.4, (0.0, 2.0, 0.01)),
            ),
            outputs=[
                io.Image.Output(
                    display_name="contact_sheets",
                    tooltip="One sheet per LoRA: for each strength, the images that are nearest to a training image. "
                    "Beside each image is the training image nearest to it.",
                ),
                io.Image.Output(
                    display_name="plot", tooltip="The share of copies for each LoRA and strength, as a plot."
                ),
                io.String.Output(display_name="csv", tooltip="One line per image, for a spreadsheet."),
                io.String.Output(display_name="summary", tooltip="The result in words."),
            ],
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    @check_inputs
    def execute(
        cls,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        references: ReferenceSet,
        latent_image: dict,
        loras: str,
        strengths: str,
        captions: str,
        most_captions: int,
        seeds: int,
        seed: int,
        negative_text: str,
        threshold: float,
        latent_threshold: float,
        nl2_threshold: float,
        **settings: Any,  # KSampler's
    ) -> io.NodeOutput:
        latent = {k: v[:1] if k in PER_IMAGE else v for k, v in prepare_latent(model, latent_image, NAME).items()}
        files, look = lora_files(loras, NAME), ImageLook(references, vae, NAME)
        prompts = _prompts(captions, references, most_captions)
        limit = {"latent": latent_threshold, "nL2": -nl2_threshold, "descriptor": threshold}[references.metric]
        tried = parse_strengths(strengths, NAME)
        audit = LoraAudit([file.name for file in files], tried, limit, references.names)
        row = [(seed + i) % 2**64 for i in range(seeds)]
        plan = AuditPlan(model, clip, vae, latent, files, tried, prompts, negative_text, row, settings, look, NAME)
        common = [
            graph_identity(cls.hidden.prompt, cls.hidden.unique_id, FROM_MODEL),
            {**settings, "negative": negative_text},
            *(tensor_identity(latent.get(name)) for name in ("samples", "noise_mask")),
            latent.get("batch_index"),
        ]
        kept = KeptImages(model_folder(REFERENCES), common, networks_fingerprint(model, clip, vae), references)
        live = LiveView()
        run = AuditRun(plan, audit, kept, lambda state: live.show(lambda: text_view(state())))
        try:
            run.run()
        except BaseException:
            done = f"Stopped after {run.done} of {counted(plan.images, 'image')}."
            live.finish(text_view(f"{done} They are kept for 30 days: run it again, and it goes on from there."))
            raise
        summary, n = _summary(audit, references, look.warning), len(run.resumed)
        resumed = f"{counted(n, 'image')} of an earlier run {'was' if n == 1 else 'were'} used again." if n else ""
        view = live.finish(text_view(f"{summary}\n{resumed}", look.warning))
        sheets = contact_sheets(audit, references.thumbnails, -1.0 if references.metric == "nL2" else 1.0)
        return io.NodeOutput(sheets, plot_audit(audit), audit.csv(), summary, ui={"text": (summary,), **view})


def _prompts(captions: str, references: ReferenceSet, most: int) -> list[Prompt]:
    """Those that were typed, else the references' own: in a caption that was trained, parentheses are no weights."""
    typed = list(dict.fromkeys(line.strip() for line in captions.splitlines() if line.strip()))
    trained = list(dict.fromkeys(caption for caption in references.captions if caption.strip()))
    if not typed and not trained:
        raise GuardError(
            f"{NAME}: `captions` is empty, and `references` holds no captions. Write the prompts to sample into "
            "`captions`, one per line."
        )
    prompts = [Prompt(line, line) for line in typed] or [Prompt(caption, unweighted(caption)) for caption in trained]
    count = min(most, len(prompts))
    return [prompts[i * len(prompts) // count] for i in range(count)]


def _summary(audit: LoraAudit, references: ReferenceSet, warning: str) -> str:
    """As Copy Check's: what was found, by what rule, and what it does not say."""
    ratio = references.metric == "nL2"
    side = f"ratio below {-audit.limit:.2f}" if ratio else f"similarity above {audit.limit:.2f}"
    found = f"{audit.copies} of {counted(audit.images, 'image')} may be {'a copy' if audit.copies == 1 else 'copies'}."
    foot = (
        f"Compared with {counted(len(references), 'reference')} only, in this sample of images. No guarantee: other "
        "captions and seeds can give copies. The brackets are 95 % intervals."
    )
    lines = [found, *([warning] if warning else []), f"Metric {references.metric}: {side} counts as a copy."]
    return "\n".join([*lines, *audit.summary_lines(-1.0 if ratio else 1.0), "", foot])


NODES = [LoRAAudit]

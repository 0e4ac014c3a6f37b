"""The command line, read and checked as far as that goes without the host; and the papers' methods and constants.

[HAN] 2510.08625, [JAIN] 2411.16738, [AMG] 2404.00922; a constant from released code is marked as such.
"""

import argparse
import json
from pathlib import Path

from mitigation import published_settings as published
from support.paths import LAB_CHECKPOINT, LAB_PACK, SMALL_CHECKPOINT

from ..cases import ORDINARY, BenchmarkError, Case, read_cases, text_of, with_kinds
from ..checkpoint import Plan
from ..methods import NONE, Inputs, Method, chosen, deferred, with_settings


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.papers",
        description="The papers' protocol on a checkpoint of your own. See docs/protocol.md.",
    )
    files = made.add_argument_group("files")
    files.add_argument("--checkpoint", type=Path, help="any file that ComfyUI's Load Checkpoint loads")
    prompts = "memorized prompts: .jsonl, .json, .csv, .tsv, or one a line; else the captions of --training-images"
    files.add_argument("--prompts", type=Path, help=prompts)
    files.add_argument("--ordinary", type=Path, help="ordinary prompts, in the same formats")
    files.add_argument("--verbatim", type=Path, help="prompts that are memorized verbatim, or a file with their types")
    files.add_argument("--training-images", type=Path, help="folder of the prompts' training images")
    files.add_argument("--sscd", type=Path, help="sscd_disc_mixup, as torchscript or safetensors")
    files.add_argument("--clip", type=Path, help="folder of a CLIP in transformers' format")
    files.add_argument("--out", type=Path, help="folder for images and report; a second run continues in it")
    what = made.add_argument_group("what is run")
    what.add_argument("--constants", choices=list(CONSTANTS), default="sd1.4", help="whose constants: %(default)s")
    what.add_argument("--methods", nargs="+", metavar="NAME", help="parts of names; all methods otherwise")
    what.add_argument("--settings", type=Path, help="JSON: method -> node -> inputs that differ")
    what.add_argument("--limit", type=int, help="only so many prompts of each file")
    some = {"type": int, "choices": range(1, 1001), "metavar": "N"}
    what.add_argument("--images", **{**some, "choices": range(1, 65)}, default=10, help="images a prompt: %(default)s")
    what.add_argument("--batch-size", **some, default=1, help="images sampled together: %(default)s")
    sizes = {**some, "choices": range(8, 8193, 8)}
    what.add_argument("--size", **sizes, default=Plan.size, help="pixels a side, a multiple of 8: %(default)s")
    what.add_argument("--steps", **some, default=Plan.steps)
    what.add_argument("--cfg", type=float, default=Plan.cfg)
    what.add_argument("--seed", type=int, default=0)
    what.add_argument("--score-only", action="store_true", help="sample nothing, score what is there")
    what.add_argument("--list", action="store_true", help="name the methods and what they set, and end")
    how = made.add_argument_group("the host")
    how.add_argument("--comfy", default="", metavar="OPTIONS", help='ComfyUI\'s own options, as in "--lowvram"')
    how.add_argument(
        "--lab", nargs="?", const="512", choices=("512", "small"), help="a lab of this repository: %(const)s or small"
    )
    return made


def read(argv: list[str]) -> argparse.Namespace | None:
    """The options, `methods` as Method, `left_out` as lines for the report. None if only a list was asked for."""
    asked = parser().parse_args(argv)
    asked.packs = {}
    if asked.lab and asked.out is not None:
        _lab(asked)
    methods = methods_for(asked.constants)
    if asked.settings is not None:
        try:
            methods = with_settings(methods, json.loads(text_of(asked.settings)))
        except json.JSONDecodeError as error:
            raise BenchmarkError(f"--settings: {asked.settings} is not JSON: {error}") from None
    asked.methods = chosen(methods, asked.methods)
    if asked.list:
        for method in asked.methods:
            inputs = json.dumps(dict(method.inputs), ensure_ascii=False)
            print(f"{method.name}  [{method.paper or 'KSampler'}]  {inputs}")
        return None
    for name in ("out", "checkpoint"):
        if getattr(asked, name) is None:
            raise BenchmarkError(f"Give --{name}.")
    reasons = [(m, _lacking(m, asked)) for m in asked.methods]
    asked.methods = [m for m, reason in reasons if not reason]
    asked.left_out = [f"{m.name} was not run: {reason}" for m, reason in reasons if reason]
    return asked


def _lacking(method: Method, asked: argparse.Namespace) -> str:
    if method.references is None:
        return ""
    if asked.training_images is None:
        return "no --training-images to stay away from"
    needs = method.references.get("metric") == "descriptor"
    return "no --sscd to compare with" if needs and asked.sscd is None else ""


def cases_of(asked: argparse.Namespace, captions: list[str]) -> list[Case]:
    """Every prompt of the run. `captions`: of the training images, used if there is no prompts file."""
    if asked.prompts is not None:
        memorized = read_cases(asked.prompts)
    else:
        memorized = [Case(row, text) for row, text in enumerate(dict.fromkeys(c for c in captions if c))]
    if not memorized:
        raise BenchmarkError("Give --prompts, or --training-images with a caption file beside each image.")
    if asked.verbatim is not None:
        memorized = with_kinds(memorized, read_cases(asked.verbatim))
    ordinary = read_cases(asked.ordinary, ORDINARY) if asked.ordinary is not None else []
    return [*memorized[: asked.limit], *ordinary[: asked.limit]]


def _lab(asked: argparse.Namespace) -> None:
    """Everything that a lab needs; its prompts are the captions of its training images."""
    from lab import copies, scenes
    from support import small_lab

    if asked.lab == "small":
        asked.checkpoint, asked.training_images = SMALL_CHECKPOINT, small_lab.TRAINING_IMAGES
        asked.constants, asked.size, ordinary = "lab", small_lab.SIZE, small_lab.ordinary_prompts()
        asked.packs = {LAB_PACK.name: LAB_PACK}
    else:
        asked.checkpoint, asked.training_images = LAB_CHECKPOINT, copies.TRAINING_IMAGES
        ordinary = scenes.ordinary_captions()
    if asked.ordinary is None:
        asked.out.mkdir(parents=True, exist_ok=True)
        asked.ordinary = asked.out / "ordinary.txt"
        asked.ordinary.write_text("\n".join(ordinary), encoding="utf-8")


LAB_NOISE = {"learning_rate": 0.03, "max_iterations": 80}  # 576 latent elements: larger steps (docs/noise.md)
# Model -> the presets of its noise and sampling, and what is studied beside them: targets, absolute d.
MODELS: dict[str, tuple[str, str, list[Inputs]]] = {
    "sd1.4": (published.HAN_SD1_SAMPLE, published.HAN_SD1_BATCH, [{"target_magnitude": 0.9}]),
    "sd2.0": (published.HAN_SD2_SAMPLE, published.HAN_SD2_BATCH, [{"target_magnitude": t} for t in (5.0, 10.0, 20.0)]),
    "lab": (published.HAN_SD1_SAMPLE, published.HAN_SD1_BATCH, [{**LAB_NOISE, "target_magnitude": 0.36}]),
}
LAB_BATCH = {"sharpness_radius": 9.5}
LAB_TAU = 0.7 * published.T_LAST
CONSTANTS = list(MODELS)


def methods_for(model: str) -> list[Method]:
    sample, batch, studied = MODELS[model]
    per_sample, batch_wise = dict(published.NOISE[sample]), dict(published.NOISE[batch])
    start = published.SAMPLING[batch]["start_percent"]
    if model == "lab":
        batch_wise, start = {**batch_wise, **LAB_BATCH}, published.percent(LAB_TAU)
    released = {"references": {"metric": "descriptor", "preparation": "AMG as released"}}
    amg = {"preset": published.AMG_RELEASED}
    alone = {**published.GUIDANCE[published.AMG_RELEASED], "deduplication": 0.0, "dissimilarity": 0.0}
    by_latent = {"references": {"metric": "latent"}}
    targets = [(f"l_target {t['target_magnitude']:g}", {**per_sample, **t}) for t in studied]
    han = deferred("static", start_percent=start)
    late = deferred("static", start_percent=published.percent(500))
    opposite = deferred("static", start_percent=published.percent(650), pre_escape_cfg=-2.0)
    rule = {k: published.SAMPLING[published.JAIN_DYNAMIC][k] for k in ("rule", "memorized_threshold", "start_percent")}
    minimum = deferred("dynamic", **rule)
    minimum_opposite = deferred("dynamic", **rule, pre_escape_cfg=-2.0)
    return [
        NONE,
        *(Method("Han per-sample", name, {"noise": noise}, paper="[HAN] individual") for name, noise in targets),
        Method(
            "Han batch-wise",
            f"CFG from {start:.0%} of the steps",
            {"noise": batch_wise, **han},
            paper="[HAN] collective",
        ),
        Method("Jain static", "CFG from t 500", late, paper="[JAIN] code"),
        Method("Jain static", "g₀ −2 until t 650", opposite, paper="[JAIN] code, opposite guidance"),
        Method("Jain dynamic", "g₀ 0", minimum, paper="[JAIN] local minimum"),
        Method("Jain dynamic", "g₀ 1", deferred("dynamic", **rule, pre_escape_cfg=1.0), True, "[JAIN] code"),
        Method("Jain dynamic", "g₀ −2", minimum_opposite, paper="[JAIN] local minimum, opposite guidance"),
        Method("AMG SSCD", "despecification alone", {**released, "guidance": alone}, paper="[AMG] G_spe"),
        Method("AMG SSCD", "as released", {**released, "guidance": amg}, True, "[AMG] code"),
        Method("AMG latent", "defaults", {**by_latent, "guidance": {}}, paper="this pack"),
        Method(
            "AMG latent",
            "where the prompt pulls",
            {**by_latent, "guidance": {"memorized_threshold": 0.02}},
            paper="this pack",
        ),
        Method("dynamic", "sharp drop", deferred("dynamic"), paper="this pack"),
    ]

"""The command line."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.paths import LAB_PACK

from .cases import MEMORIZED, ORDINARY, Case, PapersError, read_cases, with_kinds
from .methods import CONSTANTS, NONE, Method, chosen, methods_for, with_settings
from .session import Plan
from .start import ROOT

LAB = ROOT / "lab"


@dataclass
class Options:
    """What was asked for, read and checked as far as that goes without the host."""

    checkpoint: Path
    constants: str
    prompts: Path | None
    ordinary: Path | None
    verbatim: Path | None
    training_images: Path | None
    sscd: Path | None
    clip: Path | None
    out: Path
    scorers: str
    plan: Plan
    methods: list[Method]
    packs: dict[str, Path]
    comfy: str
    limit: int | None
    score_only: bool
    left_out: list[str] = field(default_factory=list)

    def cases(self, captions: list[str]) -> list[Case]:
        """Every prompt of the run; `captions`: of the training images, for when no prompts file is given."""
        if self.prompts is not None:
            memorized = read_cases(self.prompts)
        else:
            texts = dict.fromkeys(c for c in captions if c)
            memorized = [Case(row, text) for row, text in enumerate(texts)]
        if not memorized:
            raise PapersError("Give --prompts, or --training-images with a caption file beside each picture.")
        if self.verbatim is not None:
            memorized = with_kinds(memorized, read_cases(self.verbatim))
        ordinary = read_cases(self.ordinary, ORDINARY) if self.ordinary is not None else []
        return [*memorized[: self.limit], *ordinary[: self.limit]]

    def kinds(self, cases: list[Case]) -> str:
        """One line for the report on the split of the memorized prompts."""
        held = [c.kind for c in cases if c.group == MEMORIZED]
        if not any(held):
            return (
                "verbatim and template prompts are not told apart: the prompts file does not say which are which "
                "(overfit_type), and no --verbatim was given. Template prompts dilute every mean."
            )
        counts = ", ".join(f"{held.count(k)} {k or 'of unknown kind'}" for k in dict.fromkeys(held))
        return f"memorized prompts by kind: {counts}"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.papers",
        description="The papers' protocol on a checkpoint of your own. See docs/protocol.md.",
    )
    files = made.add_argument_group("files")
    files.add_argument("--checkpoint", type=Path, help="any file that ComfyUI's Load Checkpoint loads")
    files.add_argument(
        "--prompts",
        type=Path,
        help="memorized prompts: .jsonl, .json, .csv, .tsv, or one a line; "
        "without it the captions of --training-images",
    )
    files.add_argument("--ordinary", type=Path, help="ordinary prompts, in the same formats")
    files.add_argument("--verbatim", type=Path, help="prompts that are memorized verbatim, or a file with their types")
    files.add_argument("--training-images", type=Path, help="folder of the prompts' training images")
    files.add_argument("--sscd", type=Path, help="sscd_disc_mixup, as torchscript or safetensors")
    files.add_argument("--clip", type=Path, help="folder of a CLIP in transformers' format")
    files.add_argument("--out", type=Path, help="folder for pictures and report; a second run goes on in it")
    what = made.add_argument_group("what is run")
    what.add_argument("--constants", choices=list(CONSTANTS), default="sd1.4", help="whose constants: %(default)s")
    what.add_argument("--methods", nargs="+", metavar="NAME", help="parts of names; all of them otherwise")
    what.add_argument("--settings", type=Path, help="JSON: method -> node -> inputs that differ")
    what.add_argument("--limit", type=int, help="only so many prompts of each file")
    what.add_argument("--images", type=int, default=10, help="pictures a prompt: %(default)s")
    what.add_argument("--batch-size", type=int, default=1, help="pictures sampled together: %(default)s")
    what.add_argument("--size", type=int, default=512, help="pixels a side: %(default)s")
    what.add_argument("--steps", type=int, default=50)
    what.add_argument("--cfg", type=float, default=7.0)
    what.add_argument("--sampler", default="ddim")
    what.add_argument("--scheduler", default="ddim_uniform", help="%(default)s: t 981, 961, … 1, as diffusers' DDIM")
    what.add_argument("--seed", type=int, default=0)
    what.add_argument(
        "--scorers", choices=["real", "lab"], default="real", help="lab: stand-ins for the lab checkpoint"
    )
    what.add_argument("--score-only", action="store_true", help="sample nothing, score what is there")
    what.add_argument("--list", action="store_true", help="name the methods and what they set, and end")
    how = made.add_argument_group("the host")
    how.add_argument("--comfy", default="", metavar="OPTIONS", help='ComfyUI\'s own options, as in "--lowvram"')
    how.add_argument("--pack", type=Path, action="append", default=[], help="another node pack the checkpoint needs")
    how.add_argument("--lab", action="store_true", help="the lab checkpoint of this repository, with all that it needs")
    return made


def read(argv: list[str]) -> Options | None:
    """The options, or None if only the methods were to be listed. Raises PapersError."""
    held = parser().parse_args(argv)
    if held.lab:
        _lab(held)
    methods = methods_for(held.constants)
    if held.settings is not None:
        methods = with_settings(methods, _settings(held.settings))
    methods = chosen(methods, held.methods)
    if held.list:
        for method in methods:
            print(
                f"{method.name}  [{method.paper or 'KSampler'}]  {json.dumps(dict(method.inputs), ensure_ascii=False)}"
            )
        return None
    for name in ("checkpoint", "out"):
        if getattr(held, name) is None:
            raise PapersError(f"Give --{name}.")
    for name in ("images", "batch_size", "size", "steps"):
        if getattr(held, name) < 1:
            raise PapersError(f"--{name.replace('_', '-')} has to be 1 or more.")
    if held.size % 8 or held.images > 64:
        raise PapersError("--size has to be a multiple of 8, and --images at most 64.")
    for name in ("checkpoint", "prompts", "ordinary", "verbatim", "sscd"):
        if getattr(held, name) is not None and not getattr(held, name).is_file():
            raise PapersError(f"--{name}: {getattr(held, name)} is no file.")
    if held.training_images is not None and not held.training_images.is_dir():
        raise PapersError(f"--training-images: {held.training_images} is no folder.")
    methods, left_out = _possible(methods, held)
    plan = Plan(held.steps, held.cfg, held.sampler, held.scheduler, held.size, held.images, held.batch_size, held.seed)
    return Options(
        held.checkpoint,
        held.constants,
        held.prompts,
        held.ordinary,
        held.verbatim,
        held.training_images,
        held.sscd,
        held.clip,
        held.out,
        held.scorers,
        plan,
        methods,
        {p.resolve().name: p.resolve() for p in held.pack},
        held.comfy,
        held.limit,
        held.score_only,
        left_out,
    )


def _possible(methods: list[Method], held: argparse.Namespace) -> tuple[list[Method], list[str]]:
    """Methods whose references can be made, and a line for each of the others."""
    lacking = {"": ""}
    lacking["latent"] = "" if held.training_images else "no --training-images to stay away from"
    lacking["descriptor"] = lacking["latent"] or ("" if held.sscd else "no --sscd to compare with")
    reason = {m.name: lacking.get(m.metric, lacking["latent"]) for m in methods}
    return [m for m in methods if m is NONE or not reason[m.name]], [
        f"{m.name} was not run: {reason[m.name]}" for m in methods if reason[m.name]
    ]


def _settings(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise PapersError(f"--settings: {file} cannot be read as JSON: {error}") from None
    if not isinstance(held, dict):
        raise PapersError(f"--settings: {file} has to hold an object: method -> node -> inputs.")
    return held


def _lab(held: argparse.Namespace) -> None:
    """Everything that the lab checkpoint needs; its prompts are the captions of its training images."""
    from lab.scenes import SIZE, ordinary_prompts

    if held.out is None:
        raise PapersError("Give --out.")
    held.checkpoint, held.training_images = LAB / "lab.safetensors", LAB / "training_images"
    held.constants, held.scorers, held.size = "lab", "lab", SIZE
    held.pack.append(LAB_PACK)
    if held.ordinary is None:
        held.out.mkdir(parents=True, exist_ok=True)
        held.ordinary = held.out / "ordinary.txt"
        held.ordinary.write_text("\n".join(ordinary_prompts()), encoding="utf-8")

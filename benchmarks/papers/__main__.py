"""`python -m benchmarks.papers`: read what is given, sample what is missing, score everything, write the report."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from . import options, report, scorers, start, training
from .cases import MEMORIZED, ORDINARY, PapersError
from .methods import Inputs, Method
from .options import Options
from .sample import Pictures, sample
from .scores import rows
from .session import Session

if TYPE_CHECKING:
    from support.executor import Host

SEES = 320  # SSCD's side; no training image is read smaller


def main(argv: list[str] | None = None, host: Host | None = None) -> int:
    """Run the protocol; 0 if every method came through. `host`: one that runs already, for tests."""
    try:
        asked = options.read(sys.argv[1:] if argv is None else argv)
        if asked is None:
            return 0
        asked.out.mkdir(parents=True, exist_ok=True)
        failed = run(asked, host or start.start(asked.out / "host", asked.packs, asked.comfy))
    except PapersError as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if failed else 0


def run(asked: Options, host: Host) -> dict[str, str]:
    """Sample, score and write. Returns why methods failed, by name."""
    from comfy import model_management  # not before the host is there

    session = Session(host, asked.checkpoint, asked.plan)
    works = _works(asked, session)
    cases = asked.cases([w.caption for w in works])
    memorized = [c for c in cases if c.group == MEMORIZED]
    matches = training.match(memorized, works)
    print(f"{len(cases)} prompts; {matches.told(len(memorized))}", flush=True)
    descriptor = session.copy_detector(asked.sscd) if asked.sscd is not None else None
    pictures = Pictures(asked.out / "pictures", asked.plan)
    captions = {i: work.caption for i, work in enumerate(works)}
    captions |= {i: case.text for case in memorized for i in matches.works.get(case.row, [])}
    for method in asked.methods:
        pictures.claim(method, _made_by(asked, method, training.digest(works, captions)), cases)
    failed: dict[str, str] = {}
    if not asked.score_only:
        _references(asked, session, works, captions)
        failed = sample(session, pictures, asked.methods, cases, lambda line: print(line, flush=True))
    model_management.unload_all_models()  # CLIP and LPIPS are not the host's to make room for
    used = _scorers(asked, session, descriptor, works)
    found = rows(pictures, asked.methods, cases, used, matches, len(works))
    if not found:
        raise PapersError("No prompt has all of its pictures yet: there is nothing to score.")
    facts = {
        "checkpoint": asked.checkpoint.name,
        "constants": asked.constants,
        "plan": asdict(asked.plan),
        "device": str(model_management.get_torch_device()),
        "torch": torch.__version__,
        "prompts": len(memorized),
        "ordinary": sum(c.group == ORDINARY for c in cases),
        "matched": matches.told(len(memorized)),
        "kinds": asked.kinds(cases),
        "scorers": used.used,
        "missed": used.missed,
        "failed": failed,
        "left_out": asked.left_out,
        "first": 0,
        "seeds": asked.plan.images,
    }
    report.write(asked.out, facts, found, used)
    print(f"{asked.out / 'report.md'}", flush=True)
    return failed


def _made_by(asked: Options, method: Method, references: str) -> dict[str, Any]:
    """What a picture of a method depends on, apart from its prompt."""
    made: dict[str, Any] = {k: v for k, v in asdict(asked.plan).items() if k != "batch"}
    made |= {"checkpoint": _file(asked.checkpoint), "inputs": dict(method.inputs)}
    if method.metric:
        made["training images"] = references
    if method.metric == "descriptor":
        made["sscd"] = _file(asked.sscd)
    return made


def _file(path: Path | None) -> str:
    return f"{path.name}, {path.stat().st_size} bytes" if path is not None else ""


def _works(asked: Options, session: Session) -> list[training.Work]:
    if asked.training_images is None:
        return []
    listed = session.module("references.image_folder").images_in(asked.training_images, subfolders=True)
    pictures = session.module("references.image_file")
    return training.works_in(
        asked.training_images, [p for p in listed if p.suffix.lower() in pictures.SUFFIXES], pictures.read_caption
    )


def _references(asked: Options, session: Session, works: list[training.Work], captions: dict[int, str]) -> None:
    """All training images as references, with the prompts that they were trained with as captions."""
    wanted: dict[str, Inputs] = {}
    for method in asked.methods:
        if (
            method.metric
            and wanted.setdefault(method.metric, method.inputs["references"]) != method.inputs["references"]
        ):
            raise PapersError(f"--settings: all methods of the metric {method.metric} share one set of references.")
    if not wanted:
        return
    folder = training.lay_out(works, captions, Path(session.module("adapter.folders").input_root()))
    for metric, changed in wanted.items():
        count = session.add_references(metric, folder, changed)
        print(f"{count} references, metric {metric}", flush=True)


def _scorers(asked: Options, session: Session, descriptor: Any, works: list[training.Work]) -> scorers.Scorers:
    module = session.module("references.image_file")
    seen = [module.read_image(w.path, max(asked.plan.size, SEES)) for w in works]
    if asked.scorers == "lab":
        from .stand_ins import stand_ins

        return stand_ins(seen)
    return scorers.real(session, sscd=descriptor, clip=asked.clip, works=seen)


if __name__ == "__main__":
    sys.exit(main())

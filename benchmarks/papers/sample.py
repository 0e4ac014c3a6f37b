"""Sampling, one file a picture: what is there is not sampled again, and what was made otherwise is not mixed in."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .cases import Case, PapersError
from .methods import Method
from .session import Plan, Session

FACTS = "memorization-guard"  # the text chunk of a picture that holds its facts
SEEDED = 2**32


@dataclass(frozen=True)
class Facts:
    """What a picture cost, and what the nodes told about it."""

    evaluations: float  # rows of the model for this picture; a backward pass is not counted
    seconds: float
    told: dict[str, float] = field(default_factory=dict)


class Pictures:
    """The folder with the pictures of a run."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan

    def file(self, method: Method, case: Case, image: int) -> Path:
        return self.folder / _slug(method.name) / case.group / f"{case.row:05d}-{image:02d}.png"

    def complete(self, method: Method, case: Case) -> bool:
        return all(self.file(method, case, i).is_file() for i in range(self.plan.images))

    def missing(self, methods: Iterable[Method], cases: Iterable[Case]) -> list[tuple[Method, Case, range]]:
        """Batches with a picture that is not there; prompts outside, so that costs are paired in time."""
        steps = range(0, self.plan.images, self.plan.batch)
        batches = [range(i, min(i + self.plan.batch, self.plan.images)) for i in steps]
        return [
            (m, c, b)
            for c in cases
            for m in methods
            for b in batches
            if not all(self.file(m, c, i).is_file() for i in b)
        ]

    def read(self, method: Method, case: Case) -> tuple[np.ndarray, list[Facts]]:
        """Pictures (images, H, W, 3) uint8 of a prompt, with their facts."""
        pictures, facts = [], []
        for i in range(self.plan.images):
            with Image.open(self.file(method, case, i)) as image:
                facts.append(Facts(**json.loads(image.text[FACTS])))  # type: ignore[attr-defined]
                pictures.append(np.array(image.convert("RGB")))
        return np.stack(pictures), facts

    def write(self, method: Method, case: Case, image: int, picture: np.ndarray, facts: Facts) -> None:
        file = self.file(method, case, image)
        file.parent.mkdir(parents=True, exist_ok=True)
        info = PngInfo()
        info.add_text(FACTS, json.dumps(asdict(facts)))
        part = file.with_suffix(".part")
        Image.fromarray(picture).save(part, format="png", pnginfo=info)
        part.replace(file)  # an interrupted run leaves no half file

    def claim(self, method: Method, made_by: dict[str, Any], cases: Iterable[Case]) -> None:
        """Raise PapersError if the folder holds pictures of this method or of these prompts made otherwise."""
        texts = {f"{c.group} {c.row:05d}": c.text for c in cases}
        file = self.folder / _slug(method.name) / "made_by.json"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"made_by": made_by, "prompts": texts}, indent=1), encoding="utf-8")
            return
        held = json.loads(file.read_text(encoding="utf-8"))
        now = json.loads(json.dumps(made_by))
        changed = [k for k in {**held["made_by"], **now} if held["made_by"].get(k) != now.get(k)]
        other = [k for k, text in texts.items() if held["prompts"].get(k, text) != text]
        if changed or other:
            what = f"other {', '.join(changed)}" if changed else f"other prompts ({', '.join(other[:3])})"
            raise PapersError(
                f"{file.parent} holds pictures that were made with {what}. Give another --out, or delete that folder."
            )
        file.write_text(json.dumps({**held, "prompts": {**held["prompts"], **texts}}, indent=1), encoding="utf-8")


def _slug(name: str) -> str:
    """A folder's name; two methods never share one."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:4]}"


def sample(
    session: Session, pictures: Pictures, methods: list[Method], cases: list[Case], say: Callable[[str], None]
) -> dict[str, str]:
    """Make every picture that is not there. Returns why a method was given up, by its name.

    A method that fails (out of memory, an input that does not fit) is left out from then on; the others go on.
    """
    from support.executor import NodeError

    todo, failed = pictures.missing(methods, cases), dict[str, str]()
    began, done = time.monotonic(), 0
    for method, case, batch in todo:
        done += 1
        if method.name in failed:
            continue
        try:
            for image, (picture, facts) in zip(batch, _batch(session, method, case, batch), strict=True):
                pictures.write(method, case, image, picture, facts)
        except NodeError as error:
            if error.kind == "interrupted":
                raise
            failed[method.name] = f"{error.kind}: {error.message}"
            say(f"{method.name} is left out from here on. {failed[method.name]}")
            continue
        left = (time.monotonic() - began) / done * (len(todo) - done)
        say(f"[{done}/{len(todo)}, {left / 60:.0f} min left] {method.name}, {case.group} {case.row}")
    return failed


def _batch(session: Session, method: Method, case: Case, batch: range) -> Iterator[tuple[np.ndarray, Facts]]:
    """Pictures of a batch with their facts; costs are shared out evenly."""
    seed = (session.plan.seed + case.row) % SEEDED
    graph = session.graph(method, case.text, seed, batch.start, len(batch))
    session.evaluations.rows, began = 0, time.perf_counter()
    out = session.host.run(graph, session.given)
    seconds = time.perf_counter() - began
    rows = session.evaluations.rows
    for i, picture in enumerate(session.decode(out["sampler"][0]).numpy()):
        yield picture, Facts(rows / len(batch), seconds / len(batch), _told(method, out, i))


def _told(method: Method, out: dict[str, list[Any]], i: int) -> dict[str, float]:
    told: dict[str, float] = {}
    if method.inputs:
        curve = out["sampler"][1]
        told["without_cfg"] = float(curve.transition[i]) / max(curve.steps, 1)
    if "noise" in out:
        report = out["noise"][1]
        told |= {"d_before": float(report.before[i]), "d_after": float(report.after[i]), "std": float(report.std[i])}
        told |= {"iterations": float(report.iterations[i]), "reached": float(report.reached[i])}
    return told

"""A folder of images, one file each, and sampling what is missing from it: an interrupted run can be continued."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .cases import BenchmarkError, Case
from .checkpoint import Batch, Checkpoint, Facts
from .measured import Measured, Record, measure
from .methods import Method
from .scorers import Scorers

FACTS = "memorization-guard"  # the text chunk of an image that holds its facts
Wanted = Callable[[Method, str], range]  # numbers of the images of each prompt, by method and group of prompts


class Images:
    """The images of a run. `wanted` says which ones belong to it; what is in `record` need not be made again."""

    def __init__(self, folder: Path, wanted: Wanted, record: Record | None = None) -> None:
        self.folder, self.wanted, self.record = folder, wanted, record or Record()

    def file(self, method: Method, case: Case, image: int) -> Path:
        return self.folder / _slug(method.name) / case.group / f"{case.row:05d}-{image:02d}.png"

    def kept(self, method: Method, case: Case, wanted: Iterable[int]) -> bool:
        return all(self.file(method, case, i).is_file() for i in wanted)

    def there(self, method: Method, case: Case, wanted: Iterable[int]) -> bool:
        return all(self.record.there(method, case, i) or self.kept(method, case, [i]) for i in wanted)

    def missing(self, methods: Sequence[Method], batches: Iterable[Batch]) -> list[tuple[Method, Batch]]:
        """Methods change fastest, so that the costs of two methods are measured close in time."""

        def lacks(method: Method, batch: Batch) -> bool:
            parts = list(zip(batch.cases, batch.images, strict=True))
            belong = all(i in self.wanted(method, c.group) for c, i in parts)
            return belong and not all(self.there(method, c, [i]) for c, i in parts)

        return [(m, b) for b in batches for m in methods if lacks(m, b)]

    def read(self, method: Method, case: Case, wanted: Iterable[int]) -> tuple[np.ndarray, list[Facts]]:
        images, facts = [], []
        for i in wanted:
            with Image.open(self.file(method, case, i)) as image:
                facts.append(Facts(**json.loads(image.text[FACTS])))  # type: ignore[attr-defined]
                images.append(np.array(image.convert("RGB")))
        return np.stack(images), facts

    def measured(
        self, method: Method, case: Case, wanted: Iterable[int], scorers: Scorers, works: Sequence[int]
    ) -> list[Measured]:
        """Of those of the wanted images that are there."""
        found = {i: self.record.get(method, case, i) for i in wanted}
        if todo := [i for i, known in found.items() if known is None and self.kept(method, case, [i])]:
            for i, one in zip(todo, measure(*self.read(method, case, todo), case.text, scorers, works), strict=True):
                self.record.put(method, case, i, one)
                found[i] = self.record.get(method, case, i)
        return [known for known in found.values() if known is not None]

    def spread(self, method: Method, case: Case, wanted: Sequence[int], scorers: Scorers) -> float | None:
        if scorers.diversity and len(wanted) > 1 and self.kept(method, case, wanted):
            spread = scorers.diversity.spread(self.read(method, case, wanted)[0])
            self.record.put_spread(method, case, wanted, spread)
        return self.record.spread(method, case, wanted)

    def write(self, method: Method, case: Case, image: int, pixels: np.ndarray, facts: Facts) -> None:
        file = self.file(method, case, image)
        file.parent.mkdir(parents=True, exist_ok=True)
        info = PngInfo()
        info.add_text(FACTS, json.dumps(asdict(facts)))
        part = file.with_suffix(".part")
        Image.fromarray(pixels).save(part, format="png", pnginfo=info)
        part.replace(file)  # an interrupted run leaves no half file

    def claim(self, method: Method, made_by: dict[str, Any], cases: Iterable[Case]) -> None:
        """Raise BenchmarkError if the folder holds images of this method that depend on something else."""
        self.record.claim(method, made_by)
        texts = {f"{c.group} {c.row:05d}": c.text for c in cases}
        file = self.folder / _slug(method.name) / "made_by.json"
        now = json.loads(json.dumps(made_by))
        held = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"made_by": now, "prompts": {}}
        changed = [k for k in {**held["made_by"], **now} if held["made_by"].get(k) != now.get(k)]
        other = [k for k, text in texts.items() if held["prompts"].get(k, text) != text]
        if changed or other:
            what = f"other {', '.join(changed)}" if changed else f"other prompts ({', '.join(other[:3])})"
            raise BenchmarkError(
                f"{file.parent} holds images that were made with {what}. Choose another folder, or delete that one."
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**held, "prompts": {**held["prompts"], **texts}}, indent=1), encoding="utf-8")


def images_together(cases: Iterable[Case], images: int, size: int, seed: int) -> list[Batch]:
    """Batches of one prompt's images: noise depends on the prompt's row in its file, not on the batch size."""
    parts = [range(i, min(i + size, images)) for i in range(0, images, size)]
    return [
        Batch((case,) * len(part), tuple(part), (seed + case.row) % 2**32, part.start, images)
        for case in cases
        for part in parts
    ]


def prompts_together(groups: Iterable[Sequence[Case]], seeds: Iterable[int], size: int) -> list[Batch]:
    """Batches of one image of each of `size` prompts; noise depends on the prompt's place in its group and the seed."""
    parts = [(group, range(i, min(i + size, len(group)))) for group in groups for i in range(0, len(group), size)]
    return [
        Batch(tuple(group[i] for i in part), (seed,) * len(part), seed, part.start, len(group))
        for seed in seeds
        for group, part in parts
    ]


def sample(
    checkpoint: Checkpoint,
    images: Images,
    methods: Sequence[Method],
    batches: Iterable[Batch],
    minutes: float = float("inf"),
) -> dict[str, str]:
    """Make every image that is missing, as far as the time goes. Returns why a method was given up, by its name."""
    from support.executor import NodeError

    todo, failed = images.missing(methods, batches), dict[str, str]()
    if todo:
        checkpoint.warm_up(todo[0][1])
    began = time.monotonic()
    for done, (method, batch) in enumerate(todo, 1):
        if method.name in failed:
            continue
        if time.monotonic() - began > 60 * minutes:
            print(f"{minutes:g} minutes are over; {len(todo) - done + 1} batches are left", flush=True)
            break
        try:
            made = checkpoint.sample(method, batch)
        except NodeError as error:
            if error.kind == "interrupted":
                raise
            failed[method.name] = f"{error.kind}: {error.message}"
            print(f"{method.name} is skipped from here on. {failed[method.name]}", flush=True)
            continue
        for case, image, (pixels, facts) in zip(batch.cases, batch.images, made, strict=True):
            images.write(method, case, image, pixels, facts)
        left = (time.monotonic() - began) / done * (len(todo) - done) / 60
        what = f"{batch.cases[0].group} prompt {batch.cases[0].row + 1}, image {batch.images[0]}"
        print(f"[{done}/{len(todo)}, {left:.0f} min left] {method.name}, {what}", flush=True)
    return failed


def _slug(name: str) -> str:
    """A folder's name; two methods never share one."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:4]}"

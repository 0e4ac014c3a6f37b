"""What was measured on each image, and a file of it that outlives the images: another machine goes on from there."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .cases import Case
from .checkpoint import Facts
from .methods import Method
from .scorers import Scorers

PLACES = 7  # decimals of every number


@dataclass(frozen=True)
class Measured:
    """One image. `pixels`: equal for bit-identical images. `copies`, `second`: similarities; None: not compared."""

    pixels: str
    copies: float | None
    second: float | None
    aligned: dict[str, float]
    facts: Facts


class Record:
    """The measurements of images, by method, prompt and number; `file`: JSON, a line an image.

    What was made with other inputs is not found. Delete the file when the scorers change.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file, self.made_by = file, dict[str, str]()
        self._lines: dict[str, dict[str, Any]] = {}
        self._hidden: dict[str, dict[str, Any]] = {}
        if file is not None and file.is_file():
            for line in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
                self._lines[_key(line)] = line

    def claim(self, method: Method, made_by: dict[str, Any]) -> None:
        """From now on, images of this method are known only if they depend on the same things."""
        self.made_by[method.name] = json.dumps(made_by, sort_keys=True)

    def _find(self, method: Method, case: Case, image: int | list[int]) -> dict[str, Any] | None:
        about = self._about(method, case, image)
        found = self._lines.get(_key(about))
        return found if found is not None and about.items() <= found.items() else None

    def _about(self, method: Method, case: Case, image: int | list[int]) -> dict[str, Any]:
        about = {"method": method.name, "group": case.group, "prompt": case.row, "image": image}
        return about | {"made_by": _digest(f"{case.text} {self.made_by.get(method.name)}".encode())}

    def there(self, method: Method, case: Case, image: int) -> bool:
        return self._find(method, case, image) is not None

    def get(self, method: Method, case: Case, image: int) -> Measured | None:
        found = self._find(method, case, image)
        if found is None:
            return None
        held = dict(found["measured"])
        return Measured(**{**held, "facts": Facts(**held["facts"])})

    def put(self, method: Method, case: Case, image: int, measured: Measured) -> None:
        line = {**self._about(method, case, image), "measured": rounded(asdict(measured))}
        self._lines[_key(line)] = line

    def spread(self, method: Method, case: Case, images: Sequence[int]) -> float | None:
        """The diversity of these images of one prompt, if it is known."""
        found = self._find(method, case, list(images))
        return found and found["diversity"]

    def put_spread(self, method: Method, case: Case, images: Sequence[int], diversity: float) -> None:
        line = {**self._about(method, case, list(images)), "diversity": round(diversity, PLACES)}
        self._lines[_key(line)] = line

    def hide(self, method: Method, case: Case, image: int) -> None:
        """Have an image made again. The file keeps what it holds until there is something new."""
        key = _key(self._about(method, case, image))
        if key in self._lines:
            self._hidden[key] = self._lines.pop(key)

    def save(self) -> None:
        if self.file is not None:
            lines = {**self._hidden, **self._lines}
            text = "".join(json.dumps(lines[key]) + "\n" for key in sorted(lines))
            self.file.write_text(text, encoding="utf-8")


def measure(
    pixels: np.ndarray, facts: Sequence[Facts], text: str, scorers: Scorers, works: Sequence[int]
) -> list[Measured]:
    """pixels: (n, H, W, 3) uint8, images of one prompt. works: the training images that they are compared with."""
    measures = (scorers.copies, scorers.second)
    similar = [m.similarity(pixels, works) if m and len(works) else [None] * len(pixels) for m in measures]
    aligned = scorers.alignment.score(pixels, text) if scorers.alignment else {}
    return [
        Measured(
            _digest(image.tobytes()),
            *(None if values[i] is None else float(values[i]) for values in similar),
            {name: float(values[i]) for name, values in aligned.items()},
            facts[i],
        )
        for i, image in enumerate(pixels)
    ]


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, PLACES) if isinstance(value, float) else value


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _key(line: dict[str, Any]) -> str:
    return f"{line['method']} | {line['group']} | {line['prompt']:05d} | {line['image']}"

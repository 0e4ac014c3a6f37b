"""How many images of each LoRA and strength are copies, with the uncertainty that comes from few images."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from .wording import counted, shown

Z = 1.959964  # of a two-sided interval of 95 %
PAIRS = 4  # images of a row whose thumbnails are kept: the most similar ones
COLUMNS = ("lora", "strength", "caption", "seed", "similarity", "nearest", "copy")


def wilson(copies: int, images: int) -> tuple[float, float]:
    """The interval of 95 % of a share. E. B. Wilson, JASA 22 (1927); (0, 1) without images."""
    if not images:
        return 0.0, 1.0
    share, spread = copies / images, Z * Z / images
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * (share * (1 - share) / images + spread / images / 4) ** 0.5
    low = 0.0 if copies == 0 else max(middle - half, 0.0)  # exactly, where rounding would not give it
    return low, 1.0 if copies == images else min(middle + half, 1.0)


@dataclass(frozen=True, eq=False)
class SampledImage:
    """One image and the reference that it is nearest to. `similarity`: σ, larger is closer."""

    caption: str
    seed: int
    similarity: float
    nearest: int  # row of the reference set
    thumbnail: Tensor | None = None  # (s, s, 3) uint8


@dataclass
class Row:
    """The images of one LoRA at one strength. Only the most similar ones keep their thumbnails."""

    lora: str
    strength: float
    limit: float  # σ above which an image counts as a copy
    images: list[SampledImage] = field(default_factory=list)

    def add(self, image: SampledImage) -> None:
        self.images.append(image)
        kept = [i for i, one in enumerate(self.images) if one.thumbnail is not None]
        if len(kept) > PAIRS:
            least = min(reversed(kept), key=lambda i: self.images[i].similarity)
            self.images[least] = replace(self.images[least], thumbnail=None)

    @property
    def worst(self) -> list[SampledImage]:
        """The most similar ones, the worst first."""
        return sorted(self.images, key=lambda image: -image.similarity)[:PAIRS]

    @property
    def copies(self) -> int:
        return sum(image.similarity > self.limit for image in self.images)

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.copies, len(self.images))

    @property
    def count(self) -> str:
        return f"{self.copies} of {counted(len(self.images), 'image')}"


@dataclass
class LoraAudit:
    """A row for each LoRA and strength, in the order in which they are sampled; `names` are the references'."""

    loras: Sequence[str]
    strengths: Sequence[float]  # ascending
    limit: float
    names: Sequence[str]

    def __post_init__(self) -> None:
        self.rows = [Row(lora, strength, self.limit) for lora in self.loras for strength in self.strengths]

    def of(self, lora: str) -> list[Row]:
        return [row for row in self.rows if row.lora == lora]

    @property
    def copies(self) -> int:
        return sum(row.copies for row in self.rows)

    @property
    def images(self) -> int:
        return sum(len(row.images) for row in self.rows)

    def clean_up_to(self, lora: str) -> Row | None:
        """Its strongest row for which neither it nor a weaker one has a copy; None if there is none above 0."""
        found = None
        for row in sorted(self.of(lora), key=lambda row: abs(row.strength)):
            if row.copies or not row.images:
                break
            found = row if row.strength else None
        return found

    @property
    def strongest_clean(self) -> Row | None:
        """The strongest of these; of several at one strength the one of the last LoRA, which has been trained most."""
        rows = [row for lora in self.loras if (row := self.clean_up_to(lora)) is not None]
        return max(enumerate(rows), key=lambda pair: (abs(pair[1].strength), pair[0]))[1] if rows else None

    def csv(self) -> str:
        """One line per image. A text that a spreadsheet would run as a formula begins with an apostrophe."""
        file = io.StringIO()
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(COLUMNS)
        for row in self.rows:
            for one in row.images:
                texts = _plain(row.lora), _plain(one.caption), _plain(self.names[one.nearest])
                numbers = one.seed, f"{one.similarity:.6g}"
                copy = "yes" if one.similarity > row.limit else "no"
                lines.writerow((texts[0], f"{row.strength:g}", texts[1], *numbers, texts[2], copy))
        return file.getvalue()

    def summary_lines(self, sign: float = 1.0) -> list[str]:
        """What the rows say together, then each row. `sign`: −1 shows σ of nL2 as the ratio that it is made of."""
        best = self.strongest_clean
        if best is None:
            answer = "None of the LoRAs is without a copy in this sample."
        else:
            images, most = counted(len(best.images), "image"), f"{100 * best.interval[1]:.0f} %"
            answer = (
                f"The strongest without a copy: {shown(best.lora)} at strength {best.strength:g}. With {images}, a "
                f"share of copies up to {most} cannot be excluded."
            )
        each = ["Without a copy in this sample:", *map(self._clean, self.loras)] if len(self.rows) > 1 else []
        return [answer, *each, "At each strength:", *(self._line(row, sign) for row in self.rows if row.images)]

    def _line(self, row: Row, sign: float) -> str:
        low, high = (100 * end for end in row.interval)
        worst = row.worst[0]
        near = f"{sign * worst.similarity:.2f} to {shown(self.names[worst.nearest])}"
        head = (
            f"- {shown(row.lora)} at {row.strength:g}: {row.count} may be {'a copy' if row.copies == 1 else 'copies'}"
        )
        return f"{head} ({low:.0f} to {high:.0f} %), nearest {near} (seed {worst.seed}, {shown(worst.caption)!r})"

    def _clean(self, lora: str) -> str:
        row = self.clean_up_to(lora)
        return f"- {shown(lora)}: " + ("at no strength" if row is None else f"up to strength {row.strength:g}")


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text

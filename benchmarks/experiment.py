"""The harness: methods × prompts × images on one checkpoint, sampled where missing, then scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from . import training_images
from .cases import MEMORIZED, Case
from .checkpoint import Batch, Checkpoint
from .methods import Method
from .sampling import Images, sample
from .scorers import Scorers
from .scores import Row, rows
from .training_images import Work


@dataclass
class Experiment:
    """`matches`: the training images of a memorized prompt by its row; without it prompts are compared with all."""

    checkpoint: Checkpoint
    images: Images
    methods: Sequence[Method]
    cases: Sequence[Case]
    batches: Sequence[Batch]
    works: list[Work]
    make_scorers: Callable[[list[Tensor]], Scorers]  # from the training images, after sampling
    matches: dict[int, list[int]] | None = None
    copy_detector: Path | None = None
    side: int = 0  # the training images are read at least this large
    failed: dict[str, str] = field(default_factory=dict)

    def sample(self) -> None:
        """Make what is missing. Raises BenchmarkError if the folder holds images of another experiment."""
        self.claim()
        if any(m.references is not None for m in self.methods):
            folder = training_images.copy_to_input(self.works, self._captions(), self.checkpoint)
            self.checkpoint.training_images = folder
        self.failed = sample(self.checkpoint, self.images, self.methods, self.batches)

    def claim(self) -> None:
        references = training_images.digest(self.works, self._captions())
        for method in self.methods:
            made_by = self.checkpoint.made_by(method, references, self.copy_detector)
            self.images.claim(method, made_by, self.cases)

    def _captions(self) -> dict[int, str]:
        """Each training image's caption: the prompt that it belongs to, or else its caption file."""
        prompts = {c.row: c.text for c in self.cases if c.group == MEMORIZED}
        own = {i: prompts[row] for row, found in (self.matches or {}).items() if row in prompts for i in found}
        return {i: work.caption for i, work in enumerate(self.works)} | own

    def scorers(self) -> Scorers:
        from comfy import model_management

        model_management.unload_all_models()  # the scorers' networks are not the host's to make room for
        side = max(self.side, self.checkpoint.plan.size)
        return self.make_scorers(training_images.pixels(self.works, self.checkpoint, side))

    def rows(self, scorers: Scorers) -> list[Row]:
        return rows(self.images, self.methods, self.cases, scorers, self._compared)

    def _compared(self, case: Case) -> Sequence[int]:
        """A memorized prompt is compared with its own training images, an ordinary one with all of them."""
        if self.matches is None or case.group != MEMORIZED:
            return range(len(self.works))
        return self.matches.get(case.row, [])

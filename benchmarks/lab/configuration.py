"""The lab as a configuration of the harness: its checkpoint, prompts, training images, plan and scorers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab import scenes
from lab.copies import PICTURES
from support.paths import LAB_CHECKPOINT

from ..cases import MEMORIZED, ORDINARY, Case
from ..checkpoint import Checkpoint, Plan
from ..experiment import Experiment
from ..methods import Method
from ..sampling import Images, Wanted, prompts_together
from ..training_images import works_in
from .scorers import lab_scorers

if TYPE_CHECKING:
    from support.executor import Host

PLAN = Plan(sampler="euler", scheduler="normal", size=scenes.SIZE)
GROUPS = {
    MEMORIZED: tuple(Case(i, pair.caption) for i, pair in enumerate(scenes.memorized())),
    ORDINARY: tuple(Case(i, text, ORDINARY) for i, text in enumerate(scenes.ordinary_prompts())),
}


def experiment(
    host: Host,
    folder: Path,
    methods: Sequence[Method],
    wanted: Wanted,
    seeds: Iterable[int],
    *,
    groups: Iterable[str] = tuple(GROUPS),
    generated: int = 0,
) -> Experiment:
    """All 16 prompts of a group are one batch, the number of an image is its seed; time is that of one CPU thread.

    `generated`: how many of the generator's images quality is measured against; 0 leaves quality out.
    """
    # Copies are counted against all training images: random tokens lead a prompt into another's.
    checkpoint = Checkpoint(host, LAB_CHECKPOINT, PLAN, clock=time.process_time)
    parts = [GROUPS[name] for name in groups]
    return Experiment(
        checkpoint,
        Images(folder, wanted),
        methods,
        [case for part in parts for case in part],
        prompts_together(parts, seeds),
        works_in(PICTURES, checkpoint),
        lambda works: lab_scorers(works, generated),
    )

"""What a node that works for long owes the user: progress, a stop within a step, and a page that still loads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import comfy.model_management
import comfy.utils

T = TypeVar("T")
LONGEST = 2.0  # seconds: what the server needs more for, such as an upload, is not waited for

check_interrupted: Callable[[], None] = comfy.model_management.throw_exception_if_processing_interrupted
_answering: dict[object, float] = {}  # requests that the server answers now -> when they began
_work_until = 0.0


def progress(total: int) -> comfy.utils.ProgressBar:
    """The host's progress bar on the node that runs now."""
    return comfy.utils.ProgressBar(total)


def interruptible(items: Iterable[T]) -> Iterator[T]:
    """The items, unless the user stops the run. Before each, the server answers what it was asked."""
    for item in items:
        give_way()
        check_interrupted()
        yield item


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """The server works on a request."""
    key = object()
    _answering[key] = time.monotonic()
    try:
        yield
    finally:
        del _answering[key]


def give_way() -> None:
    """Wait while the server answers a request.

    Python runs one thread at a time: a node that goes through many small files makes a page load twice as slowly. Who
    asks without end must not stop the node, so at least half of the time is for its work.
    """
    global _work_until
    began = now = time.monotonic()
    if not _answering or began < _work_until:
        return
    while any(now - asked < LONGEST for asked in list(_answering.values())) and now - began < LONGEST:
        time.sleep(0.001)
        now = time.monotonic()
    _work_until = 2 * now - began

"""Out of memory: try again with less, and when nothing is left to reduce, say what the user can lower.

A failed attempt must be released before the next one begins: its error keeps every tensor of every frame it passed.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import comfy.model_management

from .errors import GuardError

log = logging.getLogger("memorization_guard")
T = TypeVar("T")


class OutOfMemoryError(GuardError, comfy.model_management.OOM_EXCEPTION):
    """A GuardError that the host also takes for out of memory, so that it unloads all models."""


# What torch says on the CPU, on Windows, on MPS, in cuBLAS and in oneDNN, whose errors have no class of their own.
WORDS = re.compile(
    r"out of memory|can't allocate memory|not enough memory|failed to allocate|ALLOC_FAILED|cannot allocate"
    r"|could not create a (primitive|memory object|memory storage object)$",
    re.I,
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether this error means that memory ran out, on any device; if so, release the tensors that it holds."""
    is_oom = getattr(comfy.model_management, "is_oom", None)  # newer hosts know other back ends' errors
    known = is_oom is not None and is_oom(error)
    known = known or isinstance(error, MemoryError | comfy.model_management.OOM_EXCEPTION)
    if not known and not (isinstance(error, RuntimeError) and WORDS.search(str(error))):
        return False
    traceback.clear_frames(error.__traceback__)
    return True


def retry_with_less(first: Callable[[], T], smaller: Callable[[], T]) -> T:
    """Return `first()`, or `smaller()` when that runs out of memory."""
    try:
        return first()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    comfy.model_management.soft_empty_cache()
    return smaller()


@dataclass
class BatchParts:
    """Runs a batch in parts that fit into memory, and remembers their size for the rest of a run."""

    size: int | None = None  # samples at once; None: the whole batch

    def run(self, body: Callable[[slice], T], count: int, least: int = 1) -> list[T]:
        """Call `body` on rows 0 … count − 1, all at once, or in parts that are halved whenever memory runs out.

        Raises what `body` raises for a part of `least` rows.
        """

        def attempt(rows: slice) -> list[T]:
            return [body(rows)]

        results: list[T] = []
        done = 0
        while done < count:
            rows = slice(done, min(done + max(self.size or count, least), count))
            size = rows.stop - done
            found: list[T] = retry_with_less(partial(attempt, rows), list) if size > least else attempt(rows)
            if found:
                results, done = results + found, rows.stop
            else:
                self.size = max(least, (size + 1) // 2)
                log.info("Out of memory with %d at once (samples or conditions): continuing with %d.", size, self.size)
        return results


@contextmanager
def explain_out_of_memory(node: str, lower: str) -> Iterator[None]:
    """Replace out of memory inside the block by an error with the sentence `lower`: what to make smaller."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        # What the back end said, without its advice for programmers.
        why = ". ".join(" ".join(str(error).split()).split(". ")[:2])[:160].rstrip(".")
        raise OutOfMemoryError(f"{node}: out of memory. {lower} ({why})") from error

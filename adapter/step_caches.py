"""Step caches of the host and of other packs (EasyCache, LazyCache, TeaCache, First Block Cache).

They skip evaluations that look like the last one, and count on one evaluation a step. One that plain sampling would
not make must neither read nor write them: it would get an old answer, or leave its own for the next step.
"""

from __future__ import annotations

import re
from typing import Any

from comfy.patcher_extension import WrapperExecutor

from .batch_rows import Options


def without_step_caches(options: Options) -> Options:
    """The options for an evaluation of our own. A cache has no mark: it is known by "cache" in its names."""
    inside = options.get("transformer_options", {})
    wrappers = {
        kind: {key: kept for key, found in by_key.items() if (kept := [w for w in found if not _is_cache(key, w)])}
        for kind, by_key in inside.get("wrappers", {}).items()
    }
    ours = {**options, "transformer_options": {**inside, "wrappers": wrappers}}
    if _is_cache("", options.get("model_function_wrapper")):
        del ours["model_function_wrapper"]
    return ours


def past_step_caches(executor: WrapperExecutor) -> WrapperExecutor:
    """The rest of a chain of PREDICT_NOISE wrappers, for an evaluation of our own."""
    kept = [w for w in executor.wrappers[executor.idx + 1 :] if not _is_cache("", w)]
    wrappers = [*executor.wrappers[: executor.idx + 1], *kept]
    return WrapperExecutor.new_class_executor(executor.original, executor.class_obj, wrappers, executor.idx)


def put_step_caches_last(wrappers: dict[Any, list]) -> None:
    """So that a cache around a whole step is inside our wrappers: a skipped step is measured like any other."""
    for key in [key for key, found in wrappers.items() if any(_is_cache(key, w) for w in found)]:
        wrappers[key] = wrappers.pop(key)


def _is_cache(key: object, function: Any) -> bool:
    # The host names a pack's module by its path: a folder above it, such as ~/.cache, says nothing about it.
    module = re.split(r"[\\/]", str(getattr(function, "__module__", "")))[-1]
    names = (key, module, getattr(function, "__qualname__", type(function).__qualname__))
    return any("cache" in str(name).lower() for name in names)

"""Run code with gradients through the host's model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TypeVar

from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider
from torch import Tensor, nn

from ..batch_rows import Conds, controls
from ..memory import retry_with_less
from .call_arguments import conds_for_autograd, options_for_autograd
from .careful_operations import careful_operations, needs_care
from .checkpointing import blocks_to_recompute, checkpointed
from .fused_kernels import plain_kernels
from .inference_weights import autograd_through, cloned_when_saved, hook_weights

T = TypeVar("T")


def patchers_of(guider: CFGGuider) -> list[ModelPatcher]:
    """Every network of a running guider: first its model, then what was loaded along with it."""
    return [guider.model_patcher, *(m for m in guider.loaded_models if hasattr(m, "model"))]


def run_with_gradients(
    body: Callable[[Conds, dict], T],
    guider: CFGGuider,
    batch: Tensor,
    options: dict,
    *,
    more_patchers: Sequence[ModelPatcher] = (),
    checkpoints: str = "auto",
    on_full_checkpoints: Callable[[], None] | None = None,
) -> T:
    """Run `body(conds, options)` with autograd working through the networks of a running guider and `more_patchers`.

    `body` gets the run's conditions and options, made fit for autograd. `batch` (B, ...) is what the model evaluates,
    and `checkpoints` are those of `blocks_to_recompute`. When `auto` runs out of memory, it starts again with full
    checkpoints and calls `on_full_checkpoints` before that. Raises what `body` raises when that does not help.
    """
    model, conds = guider.inner_model, guider.conds
    patchers = list({p.model: p for p in [*patchers_of(guider), *more_patchers]}.values())
    changing = hook_weights(model, conds)
    # A LoRA that a hook puts on one prompt is not there any more when a block is computed again.
    choice = "off" if changing else checkpoints

    def attempt_with(recomputed: list[nn.Module], careful: bool) -> T:
        with (
            autograd_through(patchers),
            cloned_when_saved(changing),
            plain_kernels(),
            checkpointed(recomputed, careful),
            careful_operations() if careful else nullcontext(),
        ):
            return body(conds_for_autograd(conds), options_for_autograd(options))

    def attempt(recomputed: list[nn.Module]) -> T:
        if not any(True for _ in controls(conds)):  # the host adds a ControlNet into activations that are still needed
            try:
                return attempt_with(recomputed, careful=False)
            except RuntimeError as error:
                if not needs_care(error):
                    raise
        return attempt_with(recomputed, careful=True)

    first = blocks_to_recompute(patchers, choice, batch)
    full = blocks_to_recompute(patchers, "full", batch) if choice == "auto" else []
    if len(first) >= len(full):  # there are no more blocks to recompute
        return attempt(first)

    def attempt_with_full_checkpoints() -> T:
        if on_full_checkpoints:
            on_full_checkpoints()
        return attempt(full)

    return retry_with_less(lambda: attempt(first), attempt_with_full_checkpoints)

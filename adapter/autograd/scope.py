"""One scope for a gradient through the host's model, whichever node asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import comfy.utils
import torch
from torch import Tensor, nn

from ..batch_rows import controls
from ..memory import retry_with_less
from .checkpointing import checkpointed, chosen_blocks
from .inference_weights import differentiable, gradient_options, normal_conds, overwritten, weights_that_change

T = TypeVar("T")
Conds = dict[str, list[dict]]


def with_gradients(
    body: Callable[[Conds, dict], T],
    *,
    model,
    networks: Sequence[nn.Module],
    conds: Conds,
    options: dict,
    shape: torch.Size,
    device: torch.device,
    checkpoints: str = "auto",
    on_full: Callable[[], None] | None = None,
) -> T:
    """Run `body(conds, options)` with autograd working through `networks`, of which the host's `model` is one.

    The arguments that `body` gets are those of the run, made fit for autograd. `shape`: of the batch that
    is evaluated. `checkpoints`: see `checkpointing.chosen_blocks`. `auto` begins again with all of them when
    memory runs out, and calls `on_full` before that. Raises what `body` raises when that does not help.
    """
    changing = _weights_of_hooks(model, conds)
    # A LoRA that comes and goes with a prompt is gone when a block is computed again.
    choice = "off" if changing else checkpoints

    def chosen(choice: str) -> list[nn.Module]:
        return chosen_blocks(networks, choice, model=model, rows=shape[0], shape=tuple(shape), device=device)

    def attempt(parts: list[nn.Module]) -> T:
        def once(out_of_place: bool) -> T:
            with differentiable(networks), weights_that_change(changing), checkpointed(parts, out_of_place):
                return body(normal_conds(conds), gradient_options(options, out_of_place))

        if any(True for _ in controls(conds)):  # the host adds a ControlNet into what the UNet still needs
            return once(out_of_place=True)
        try:
            return once(out_of_place=False)
        except RuntimeError as error:
            if not overwritten(error):
                raise
        return once(out_of_place=True)

    first = chosen(choice)
    full = chosen("full") if choice == "auto" else []
    if len(first) >= len(full):  # nothing is left to compute again
        return attempt(first)

    def again() -> T:
        if on_full:
            on_full()
        return attempt(full)

    return retry_with_less(lambda: attempt(first), again)


def networks_of(guider) -> list[nn.Module]:
    """Every network of a running guider: its model, and what was loaded along with it."""
    return [guider.inner_model, *(m.model for m in guider.loaded_models if hasattr(m, "model"))]


def _weights_of_hooks(model, conds: Conds) -> list[Tensor]:
    """The weights that hooks on the prompts rewrite while the model is evaluated."""
    if not any(c.get("hooks") for group in conds.values() for c in group):
        return []
    keys = {k for patches in model.current_patcher.hook_patches.values() for k in patches}
    return [comfy.utils.get_attr(model, k) for k in keys]

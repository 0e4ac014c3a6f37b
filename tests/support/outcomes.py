"""What came of a run: samples, copies, or one sentence that refuses it."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from support.executor import Host, NodeError, Prompt
from support.lab_pack import exact


def samples(output: list[Any]) -> Tensor:
    return output[0]["samples"]


def copies(output: list[Any]) -> float:
    return float(exact.is_copy(output[0]).float().mean())


def same_bits(*outputs: list[Any]) -> bool:
    return all(torch.equal(samples(output), samples(outputs[0])) for output in outputs[1:])


def fails(host: Host, prompt: Prompt, given: Mapping[str, Any] | None = None) -> NodeError:
    with pytest.raises(NodeError) as caught:
        host.run(prompt, given)
    return caught.value


def refused(host: Host, prompt: Prompt, given: Mapping[str, Any] | None = None) -> str:
    """What one of our nodes says, which has to refuse this."""
    error = fails(host, prompt, given)
    assert error.kind.endswith("GuardError"), error
    return error.message

"""Gradients through weights that the host lends for one call: the same as through weights that are there."""

from __future__ import annotations

import pytest
import torch

from support.executor import Host
from support.gradients import gradients
from support.graphs.checkpoint import ksampler
from support.graphs.features import Feature
from support.lent_weights import STATES, lending


@pytest.mark.parametrize("state", STATES)
def test_the_optimizers_gradient(host: Host, checkpoint, state: str) -> None:
    expected, _ = gradients(host, Feature(), checkpoint)
    with lending(state) as load:
        given = {**checkpoint, **load()}
        before = host.run(Feature().prompt(k=ksampler()), given)["k"][0]["samples"]
        for checkpoints in ("off", "on", "full"):
            found, _ = gradients(host, Feature(), given, checkpoints)
            print(state, checkpoints, found.error, float((found.gradient - expected.gradient).norm() / expected.gradient.norm()))
            torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-4, atol=1e-6)
        after = host.run(Feature().prompt(k=ksampler()), given)["k"][0]["samples"]
    assert torch.equal(before, after)

"""What showing a run costs the run."""

from __future__ import annotations

import json
import time

import pytest

from support import graphs as prompts
from support.executor import Host

PACK = "memorization_guard"
MOST = 0.01  # of the run's processor time
WIRES = {"model": ["m", 0], "positive": ["mem", 0], "negative": ["null", 0], "latent_image": ["latent", 0]}


@pytest.mark.parametrize(("batch", "steps"), [(4, 50), (16, 20)])
@pytest.mark.parametrize("kind", ["deferral", "guidance"])
def test_a_view_costs_at_most_a_hundredth(
    host: Host, checkpoint, monkeypatch, batch: int, steps: int, kind: str
) -> None:
    """On the lab checkpoint, whose steps are far shorter than those of any real model."""
    live = host.module(PACK, "adapter.live_view").LiveView
    spent: list[float] = []

    def timed(method):
        def wrapper(self, *args):
            began = time.thread_time()
            try:
                return method(self, *args)
            finally:
                spent.append(time.thread_time() - began)

        return wrapper

    for name in ("show", "finish"):
        monkeypatch.setattr(live, name, timed(getattr(live, name)))
    prompt = {
        "mem": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["clip", 0], "text": "Harbour at Dawn, a red disc"}},
        "null": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["clip", 0], "text": ""}},
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 96, "height": 96, "batch_size": batch}},
    }
    if kind == "deferral":
        prompt["s"] = prompts.deferred(**WIRES, steps=steps, pre_escape_cfg=-1.0, start_percent=1.0)
    else:
        prompt["refs"] = prompts.references()
        prompt["g"] = prompts.amg(model=["m", 0])
        prompt["s"] = prompts.ksampler(**{**WIRES, "model": ["g", 0], "steps": steps})
        prompt["works"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 96, "height": 96, "batch_size": 3}}
    began = time.thread_time()
    host.run(prompt, given=checkpoint)
    whole = time.thread_time() - began
    sent = [data["view"] for event, data in host.events if event == f"{PACK}.view"]
    began = time.thread_time()
    for view in sent:
        json.dumps(view)  # the server does this in its own thread, under the same lock
    written = time.thread_time() - began
    share = (sum(spent) + written) / whole
    size = max(len(json.dumps(view)) for view in sent)
    print(
        f"\n{kind}, batch {batch}: {len(sent)} views in {whole:.2f} s, {1000 * sum(spent):.1f} ms to make and send, "
        f"{1000 * written:.1f} ms to write, {size / 1024:.0f} kB the largest: {share:.2%}"
    )
    assert len(sent) > 2 and sent[-1]["done"]
    assert share <= MOST

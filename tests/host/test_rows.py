"""A batch optimised together: each sample as it would be alone, whatever conditions are its own."""

from typing import Any

import pytest
import torch

from support.executor import Host
from support.graphs import node
from support.graphs.checkpoint import MEMORIZED, ORDINARY, SIZE, optimizer
from support.graphs.features import CONDITIONS, Feature, encoded, halves, image
from support.lab_files import EXTRAS, hints

BATCH = 3
PLAN = {"learning_rate": 0.03, "max_iterations": 4}
CAPTIONS = [MEMORIZED, ORDINARY, "Winter Orchard, a blue cross"]
LATENT = {"latent_image": ["given latent", 0]}


def masks() -> torch.Tensor:
    return torch.cat([halves(), torch.ones(1, SIZE, SIZE)])


def own(host: Host, checkpoint, name: str, row: int | None) -> tuple[Feature, dict[str, Any]]:
    """The feature for the whole batch, or for one sample alone with what is its own."""
    mine = slice(None) if row is None else slice(row, row + 1)
    if name == "prompts":
        prompt = encoded(host, checkpoint, CAPTIONS[mine])
        return Feature({}, {"positive": ["prompts", 0]}), {"prompts": prompt}
    if name == "masks":
        return CONDITIONS["mask"], {"mask": masks()[mine]}
    if name == "ControlNet hints":
        return EXTRAS["ControlNet, a hint a sample"], {"hint": hints(BATCH)[mine]}
    return EXTRAS[name] if name in EXTRAS else CONDITIONS[name], {"hint": hints(1)}


def optimized(host: Host, checkpoint, name: str, row: int | None, **plan: Any) -> tuple[torch.Tensor, Any]:
    feature, given = own(host, checkpoint, name, row)
    samples = torch.zeros(BATCH if row is None else 1, 4, SIZE, SIZE)
    noises = [2, 1, 0] if name.startswith("ControlNet") else [0, 1, 2]  # the one that is done first is not the last
    latent = {"samples": samples, "batch_index": noises if row is None else [noises[row]]}
    links = {**feature.inputs(), **LATENT}
    prompt = feature.prompt(o=optimizer(**{**links, **PLAN, **plan}))
    noise, report, _ = host.run(prompt, {**checkpoint, **given, "given latent": latent})["o"]
    return noise.noise, report


@pytest.mark.parametrize("name", ["prompts", "masks", "ControlNet hints", "ControlNet", "LoRA on the positive", "area"])
def test_together_is_as_alone(host: Host, checkpoint, name: str) -> None:
    measured = optimized(host, checkpoint, name, None, max_iterations=0, target_magnitude=0.0)[1]
    order = measured.before.sort().values
    # One sample is done at once, the others go on without it; the next is done on the way.
    target = {"target_magnitude": float(order[:2].mean()), "target_units": "absolute"}
    together, report = optimized(host, checkpoint, name, None, **target)
    assert report.iterations.min() == 0 and report.iterations.max() >= 2
    first = int(report.evaluations.argmin())
    assert first != BATCH - 1, "the places of the others have changed"
    assert (report.after <= report.before).all() and (report.after < report.before).any()
    for row in range(BATCH):
        alone, single = optimized(host, checkpoint, name, row, **target)
        torch.testing.assert_close(together[row], alone[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(report.after[row], single.after[0], atol=0, rtol=1e-3)
        assert report.iterations[row] == single.iterations[0]


def test_image_to_image_is_optimised_where_it_starts(host: Host, checkpoint) -> None:
    """At the first sigma of its own schedule, with the image underneath."""
    given = {"image": {"samples": image(2)}}
    late = node("BasicScheduler", model=["m", 0], scheduler="normal", steps=4, denoise=0.5)
    plan = {**PLAN, "latent_image": ["image", 0], "target_magnitude": 0.0}
    prompt = Feature().prompt(
        sigmas=late, at_t=optimizer(**plan), below=optimizer(**plan, sigmas=["sigmas", 0], checkpointing="on")
    )
    out = host.run(prompt, {**checkpoint, **given})
    assert (out["below"][1].after < out["below"][1].before).all()
    assert not torch.allclose(out["below"][1].before, out["at_t"][1].before, rtol=0.1)

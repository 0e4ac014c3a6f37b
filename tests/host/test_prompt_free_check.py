"""Prompt-Free Check, and what Calibrate Thresholds measures for it."""

from typing import Any

import pytest
import torch

from lab.copies import training_pairs
from lab.scenes import World
from support import graphs, small_lab
from support.executor import Host
from support.graphs import node
from support.graphs.checkpoint import load
from support.outcomes import refused
from support.paths import LAB_CHECKPOINT

LINKS = {"model": ["m", 0], "clip": ["clip", 0], "vae": ["vae", 0], "images": ["i", 0]}


def check(**changed: Any) -> dict[str, Any]:
    return node("MG_PromptFreeCheck", **{**LINKS, **changed})


@pytest.fixture
def given(checkpoint: dict[str, Any]) -> dict[str, Any]:
    drawn = torch.rand(3, 96, 96, 3, generator=torch.Generator().manual_seed(1))
    return {**{name: checkpoint[name] for name in ("m", "clip", "vae")}, "i": drawn}


def test_what_the_model_knows_by_heart_is_found(host: Host) -> None:
    """On the lab of SD's size: a training image beside a new scene of the same program."""
    world = World()
    new = world.draw(world.generator(7), torch.arange(1), 512).movedim(1, -1)
    works = torch.stack([torch.from_numpy(image.copy()).float() / 255 for _, image in training_pairs()[:1]])
    given = {**load(host, LAB_CHECKPOINT), "i": torch.cat([works, new])}
    familiarity, memorized, summary, clean, copies, places = host.run({"c": check(noises=4)}, given)["c"]
    assert familiarity[0] > 1.15 > familiarity[1], familiarity
    assert memorized and summary.startswith("1 of 2 images may be memorized."), summary
    assert torch.equal(clean[0], given["i"][1:]) and torch.equal(copies[0], given["i"][:1])
    colour = (places.amax(-1) - places.amin(-1))[:, :400, 420:].mean((1, 2))  # of the grey image
    assert colour[0] > 3 * colour[1], f"what it knows is coloured: {colour}"
    view = host.views("c")[-1]
    assert view["warning"] == "1 of 2 images may be memorized."
    assert any("image 1: " in line and "MEMORIZED?" in line for line in view["notes"])


def test_a_batch_equals_its_images_and_a_second_run_the_first(host: Host, given: dict[str, Any]) -> None:
    whole = host.run({"c": check()}, given)["c"][0]
    assert host.run({"c": check()}, {**given, "i": given["i"].clone()})["c"][0] == whole
    alone = [host.run({"c": check()}, {**given, "i": given["i"][k : k + 1]})["c"][0][0] for k in range(3)]
    assert alone == pytest.approx(whole, rel=1e-5)
    assert host.run({"c": check(noise_seed=5)}, given)["c"][0] != whole


def test_no_image_that_is_wide_or_transparent_stops_it(host: Host, given: dict[str, Any]) -> None:
    clear = torch.cat([given["i"], torch.ones(3, 96, 96, 1)], dim=-1)
    none = {"c": check(familiarity_threshold=100.0)}
    plain, through = (host.run(none, {**given, "i": images})["c"] for images in (given["i"], clear))
    assert plain[0] == through[0] and not through[1]
    assert torch.equal(through[3][0], clear), "given back opaque"
    wide = torch.rand(1, 64, 120, 3)
    assert 0 < host.run({"c": check(noises=2)}, {**given, "i": wide})["c"][0][0] < float("inf")


def test_calibration_with_ordinary_images(host: Host, given: dict[str, Any]) -> None:
    own = {"model": ["m", 0], "latent_image": ["latent", 0], "images": ["i", 0], "noise_seed": 0}
    prompts = "\n".join(small_lab.ordinary_prompts()[:2])
    given["latent"] = {"samples": torch.zeros(1, 4, 12, 12)}
    values = host.run({"c": graphs.calibrate(prompts, **own, vae=["vae", 0])}, given)["c"]
    suggested = host.views("c")[-1]["suggested"]["familiarity_threshold"]
    familiarity = torch.tensor(host.run({"c": check()}, given)["c"][0])
    logs = familiarity.log()
    assert values[4] == pytest.approx(max(1.1, float((logs.mean() + 2.5 * logs.std()).exp())), rel=1e-5)
    assert f"familiarity_threshold {values[4]:.2f}, from 3 ordinary images" in values[3]
    assert suggested == pytest.approx(values[4], abs=1e-3)
    without = host.run({"c": graphs.calibrate(prompts, **{**own, "images": ["none", 0]})}, {**given, "none": None})["c"]
    assert without[:3] == values[:3] and without[4] == 1.15, "the node's default, where nothing was measured"
    assert "familiarity_threshold" not in host.views("c")[-1]["suggested"]
    assert "`images` needs `vae`" in refused(host, {"c": graphs.calibrate(prompts, **own)}, given)


class OtherVAE:
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, 16, 12, 12)


def test_another_models_vae_is_refused(host: Host, given: dict[str, Any]) -> None:
    said = refused(host, {"c": check()}, {**given, "vae": OtherVAE()})
    assert "`vae` makes latents of 16 channels, but `model` works with 4." in said

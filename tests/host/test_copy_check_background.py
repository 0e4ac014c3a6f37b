"""Copy Check with a background: score normalisation by ordinary images, and what is no background."""

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn.functional import interpolate

from memorization_guard.adapter.copy_detector import clip_vision_descriptor
from memorization_guard.mitigation.references.features import descriptor_features
from support import graphs
from support.executor import Host
from support.outcomes import fails

CHECK = graphs.check("r", background=["b", 0], threshold=0.05)


def coarse(count: int, seed: int) -> torch.Tensor:
    drawn = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return interpolate(drawn, (64, 64), mode="bilinear").movedim(1, -1)


@pytest.fixture(scope="module")
def sets(host: Host, clip_vision: Any) -> dict[str, Any]:
    given = {"k": coarse(20, 0), "o": coarse(40, 1), "f": coarse(2, 2), "n": coarse(51, 3), "descriptor": clip_vision}
    prompt = {
        **{
            name: graphs.from_images("descriptor", images=[i, 0])
            for name, i in {"r": "k", "b": "o", "few": "f"}.items()
        },
        "nl2": graphs.from_images("nL2", images=["n", 0]),
    }
    return {**given, **{name: made[0] for name, made in host.run(prompt, given).items() if name in prompt}}


def test_the_three_nearest_of_the_placement_that_won_are_subtracted(host: Host, sets: dict[str, Any]) -> None:
    """Equation 8 from the embeddings themselves; two of the images are mirrored copies."""
    images = torch.cat([sets["k"][:2].flip(2), coarse(4, 5)])
    given = {**sets, "i": images}
    out = host.run({"c": CHECK, "plain": graphs.check("r", threshold=0.05)}, given)
    network = clip_vision_descriptor(sets["descriptor"])
    with torch.inference_mode():
        both = torch.stack([descriptor_features(x.movedim(-1, 1), network) for x in (images, images.flip(2))])
    cosines = both @ sets["r"].features.float().T
    won = cosines.amax(dim=2).argmax(dim=0)
    assert won[:2].tolist() == [1, 1] and won.unique().tolist() == [0, 1]
    ordinary = both @ sets["b"].features.float().T
    expected = [cosines[w, i].max() - ordinary[w, i].topk(3)[0].mean() for i, w in enumerate(won.tolist())]
    torch.testing.assert_close(torch.tensor(out["c"][0]), torch.stack(expected), atol=2e-4, rtol=0)
    plain = torch.tensor(out["plain"][0])
    torch.testing.assert_close(plain, cosines.amax(dim=(0, 2)), atol=2e-4, rtol=0)
    assert "similarity minus background above 0.05" in out["c"][3] and "minus background" not in out["plain"][3]
    taken = (plain - torch.tensor(out["c"][0])).mean()
    assert f"a threshold of {0.05 + taken:.2f} without it" in out["c"][3]
    assert f"image 1: {out['c'][0][0]:.2f} ({plain[0]:.2f} − {plain[0] - out['c'][0][0]:.2f})" in out["c"][3]


def test_references_in_the_background_are_a_warning(host: Host, sets: dict[str, Any]) -> None:
    own = dataclasses.replace(sets["r"], names=tuple(f"work {i}" for i in range(20)))
    out = host.run({"c": CHECK}, {**sets, "r": own, "b": sets["r"], "i": sets["k"][:2]})["c"]
    assert "holds work 0 and 1 other reference, so their copies are missed" in out[3] and not out[2]
    assert "work 0" in host.views("c")[-1]["warning"]


@pytest.mark.parametrize(
    ("references", "background", "says"),
    [
        ("nl2", "b", "`background` needs references with the descriptor metric, but these have the metric nL2"),
        ("r", "nl2", "`background` has the metric nL2. Make it with the descriptor metric"),
        ("r", "few", "`background` holds 2 images, but at least 3 are needed"),
        ("r", "other", "`background` was made with another network, the references with CLIP vision"),
        ("r", "older", "An older version of this pack saved a set, so it is unknown"),
    ],
)
def test_what_is_no_background_is_named(
    host: Host, sets: dict[str, Any], references: str, background: str, says: str
) -> None:
    changed = {
        "other": dataclasses.replace(sets["b"], descriptor_hash=f"0:{43 * 'A'}=", descriptor_name="another network"),
        "older": dataclasses.replace(sets["b"], descriptor_hash="0"),
    }
    known = {**sets, **changed}
    prompt = {"c": graphs.check("r", background=["b", 0])}
    failed = fails(host, prompt, {"r": known[references], "b": known[background], "i": sets["k"][:2]})
    assert failed.message.startswith(f"Copy Check: {says}")


def test_a_network_that_finds_most_images_similar_says_so(host: Host, sets: dict[str, Any]) -> None:
    """Not with a background, which is one of the ways out."""
    prompt = {name: graphs.check("r", threshold=limit) for name, limit in (("low", 0.5), ("high", 0.9))}
    out = host.run({**prompt, "c": CHECK}, {**sets, "i": coarse(2, 5)})
    said = ["finds most images similar. Start with a threshold of 0.9" in out[name][3] for name in ("low", "high", "c")]
    assert said == [True, False, False]

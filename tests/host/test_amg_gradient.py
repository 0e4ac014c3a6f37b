"""The gradient of the dissimilarity term against finite differences, inside a real sampling run on the exact model."""

from typing import Any

import pytest
import torch

from support.executor import Host
from support.gradients import amg_gradient_node
from support.graphs import LATENT, NULL, ORDINARY, amg, from_images, lab
from support.graphs.checkpoint import MEASURED, load
from support.lab_pack import exact
from support.lent_weights import recast

BATCH = 2
# The other ways of each metric are in test_lent_weights.py, on the small lab.
CASES = [("latent", "prediction", "eps"), ("nL2", "model", "eps"), ("descriptor", "prediction", "eps")]
CASES += [("latent", "model", kind) for kind in ("v", "flow")]


@pytest.fixture(scope="module")
def networks(host: Host, clip_vision) -> dict[str, Any]:
    given = {"vae": load(host)["vae"], "descriptor": recast(clip_vision, torch.float16)}
    given["vae"].process_output = torch.sigmoid  # the host clamps: differences would see the kinks
    return given


@pytest.mark.parametrize(("metric", "way", "kind"), CASES)
def test_gradient_is_the_finite_difference(host: Host, networks, twins, images, metric, way, kind) -> None:
    """With despecification, which the gradient through the model includes."""
    twin = exact.build(kind)
    twin.model.diffusion_model.dtype = torch.float64  # what the host casts the model's input to
    strengths = {**MEASURED, "despecification": 2.0, "gradient": f"through {way}", "vae": ["vae", 0]}
    links = {"model": ["a", 0], "positive": ORDINARY, "negative": NULL, "latent_image": LATENT}
    prompt = {"lab": lab(BATCH, kind), "refs": from_images(metric), "a": amg(**strengths)}
    asked = {**prompt, "g": amg_gradient_node(twins, **links)}
    given = {"i": images["i"] if metric == "nL2" else images["i"][:3]}
    found = host.run(asked, {**networks, **twins, **given, "exact_model": twin})["g"][0]
    print(f"{metric} through {way}, {kind}: {found.said}")
    assert found.good and found.error < 1e-3

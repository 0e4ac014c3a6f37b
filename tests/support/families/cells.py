"""The columns of the matrix: what every node must do on every model. A check raises where it does not hold."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from support.executor import Host, NodeError
from support.families.kinds import Family, Precision
from support.gradients import gradient_node
from support.graphs import references
from support.graphs.checkpoint import LINKS, NO_BASIN
from support.graphs.words import Link, Node, Words
from support.lab_pack.exact import TextEncoder

STEPS = 3
BASIN = {"memorized_threshold": 0.0}
CLIP = {"clip": ["clip", 0]}


@dataclass(frozen=True)
class Cell:
    """One cell. `outcome`: pass, refused, not here or FAIL; `said`: the reason, or what a pass was remarked with."""

    outcome: str
    said: str = ""

    def __str__(self) -> str:
        return f"{self.outcome}: {self.said}" if self.said else self.outcome


@dataclass
class Bench:
    """One model under test, with what vanilla makes of it. A node `m` in every prompt is the model."""

    host: Host
    family: Family
    given: dict[str, Any]
    vanilla: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.samples(k=self.words.ksampler())  # on a GPU the first run after loading differs from all later ones
        self.vanilla = self.samples(k=self.words.ksampler())

    @property
    def model(self) -> Link:
        return ["p", 0] if self.family.patch else ["m", 0]

    @property
    def words(self) -> Words:
        return Words({**LINKS, "model": self.model}, {"steps": STEPS, "cfg": self.family.cfg})

    def run(self, **nodes: Node) -> dict[str, list[Any]]:
        patch = {"p": self.family.patch} if self.family.patch else {}
        return self.host.run({**patch, **nodes}, self.given)

    def samples(self, **nodes: Node) -> Tensor:
        out = self.run(**nodes)[list(nodes)[-1]][0]["samples"]
        assert torch.isfinite(out).all(), "NaN or infinite"
        return out

    def same(self, **nodes: Node) -> None:
        assert torch.equal(self.samples(**nodes), self.vanilla), "not bit-identical to KSampler"

    def other(self, **nodes: Node) -> None:
        found = self.samples(**nodes)
        assert not torch.equal(found, self.vanilla), "it did nothing"

    def optimizer(self, method: str, **changed: Any) -> Node:
        return self.words.optimizer(method, **{"target_magnitude": 0.0, **changed})

    def found(self, method: str, **changed: Any) -> tuple[Tensor, Any]:
        noise, report, _ = self.run(o=self.optimizer(method, **changed))["o"]
        assert torch.isfinite(noise.noise).all() and torch.isfinite(report.after).all(), "NaN or infinite"
        assert (report.before > 0).all(), "the two prompts are predicted alike"
        return noise.noise, report

    @property
    def drawn(self) -> Tensor:
        return self.found("search", candidates=1)[0]


def detector(bench: Bench) -> None:
    out = bench.run(d=bench.words.detector(**BASIN))["d"]
    d = out[3].d[:, : out[3].measured]  # it ends with the last escape
    assert torch.isfinite(d).all() and (d > 0).all(), "d is not a positive number"
    assert out[0] is True and out[1] > 0, "a threshold of 0 is a basin"
    before = bench.found("search", candidates=1)[1].before
    torch.testing.assert_close(before, d[:, 0], rtol=0.02, atol=0)  # their noise levels differ where a schedule's do


def off(bench: Bench) -> None:
    bench.same(k=bench.words.deferred("off"))


def static(bench: Bench) -> None:
    bench.same(k=bench.words.deferred("static", start_percent=0.0))
    bench.other(k=bench.words.deferred("static", start_percent=0.9))


def dynamic(bench: Bench) -> None:
    bench.same(k=bench.words.deferred("dynamic", **NO_BASIN))
    bench.other(k=bench.words.deferred("dynamic", **BASIN, start_percent=0.9))


def guider(bench: Bench) -> None:
    for check, changed in ((bench.same, {"mode": "off"}), (bench.other, {**BASIN, "start_percent": 0.9})):
        check(guider=bench.words.guider(**changed), **bench.words.custom(["guider", 0]))


def patch(bench: Bench) -> None:
    k = bench.words.ksampler(model=["g", 0])
    for check, changed in ((bench.same, {"mode": "off"}), (bench.same, NO_BASIN), (bench.other, BASIN)):
        check(g=bench.words.patch(start_percent=0.9, **changed), k=k)


def calibrate(bench: Bench) -> None:
    ordinary, target, threshold, *_ = bench.run(c=bench.words.calibrate("one\ntwo"))["c"]
    assert 0 < target == ordinary < threshold < float("inf"), "thresholds that cannot be"


def batchwise(bench: Bench) -> None:
    assert torch.equal(bench.found("batch-wise", adjustment_strength=0.0)[0], bench.drawn), "strength 0 moved the noise"
    assert not torch.equal(bench.found("batch-wise")[0], bench.drawn), "it did nothing"
    bench.other(o=bench.optimizer("batch-wise"), k=bench.words.deferred("static", noise=["o", 0]))


def per_sample(bench: Bench) -> None:
    noise, measured = bench.found("per-sample", max_iterations=0)
    assert torch.equal(noise, bench.drawn), "0 iterations moved the noise"
    report = bench.found("per-sample", max_iterations=2, learning_rate=0.03)[1]
    torch.testing.assert_close(report.before, measured.before, rtol=0.02, atol=0)  # another attention back end
    assert (report.after < report.before).all(), "the gradient leads nowhere"


def search(bench: Bench) -> None:
    bench.same(o=bench.optimizer("search", candidates=1), k=bench.words.deferred("off", noise=["o", 0]))
    report = bench.found("search", candidates=3)[1]
    assert (report.after <= report.before).all(), "the best of three is worse than the first"


def amg(bench: Bench, **strengths: Any) -> None:
    """The references are noise or the image itself: λ = 0.9 leaves it alone, λ = 0 steers all that is like it."""
    noise = torch.randn(2, *bench.vanilla.shape[1:], generator=torch.Generator().manual_seed(9))
    bench.given["noise"] = {"samples": noise}
    bench.given["twice"] = {"samples": bench.vanilla[:1].repeat(2, *[1] * (noise.ndim - 1))}
    far, near = (references("one\none", name) for name in ("noise", "twice"))
    zero = {"despecification": 0.0, "deduplication": 0.0, "dissimilarity": 0.0}
    k = bench.words.ksampler(model=["g", 0])

    def guided(threshold: float, **scales: float) -> Node:
        limits = {"threshold_min": threshold, "threshold_max": threshold, "threshold_schedule": "constant"}
        return bench.words.amg(clip=["clip", 0], **limits, **{**zero, **scales})

    bench.same(refs=near, g=guided(0.0), k=k)
    bench.same(refs=far, g=guided(0.9, **strengths), k=k)
    bench.other(refs=near, g=guided(0.0, **strengths), k=k)


def prompt_check(bench: Bench) -> None:
    word, best, pull, shares, _ = bench.run(c=bench.words.ours("MG_PromptCheck", **CLIP, text="a red house"))["c"]
    assert word in ("a", "red", "house") and best and len(shares) == 3, "not one share a word"
    assert 0 < pull < float("inf") and torch.isfinite(torch.tensor(shares)).all(), "a pull that cannot be"


@dataclass
class Encoder:
    """Stands in for a family's VAE, which its tiny model has none of."""

    latent: tuple[int, ...]

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels.mean(dim=-1).expand(*self.latent).clone()[None]


def prompt_free(bench: Bench) -> None:
    high, wide = bench.family.latent[-2:]
    images = torch.rand(2, high, wide, 3, generator=torch.Generator().manual_seed(1))
    bench.given |= {"encoder": Encoder(bench.family.latent), "finished": images}
    own = {**CLIP, "vae": ["encoder", 0], "images": ["finished", 0], "noises": 2}
    familiarity, memorized, *_ = bench.run(c=bench.words.ours("MG_PromptFreeCheck", **own))["c"]
    assert len(familiarity) == 2 and all(0 < one < float("inf") for one in familiarity), familiarity
    assert memorized == any(one >= 1.15 for one in familiarity)


def reanchoring(bench: Bench) -> None:
    k = bench.words.ksampler(model=["g", 0])
    for check, threshold in ((bench.same, 10.0), (bench.other, 1e-6)):
        own = {"reworded": bench.words.links["negative"], "memorized_threshold": threshold, "rewording_threshold": 0.0}
        check(g=bench.words.ours("MG_PromptReanchor", **own), k=k)


def attenuation(bench: Bench) -> None:
    for check, factor in ((bench.same, 1.0), (bench.other, 0.0)):
        check(g=bench.words.ours("MG_AttentionAttenuation", factor=factor), k=bench.words.ksampler(model=["g", 0]))


def guard(bench: Bench) -> None:
    """What is ordinary is the prompt itself: the node measures, and leaves no trace in the images."""
    mem, null = bench.given["mem"], bench.given["null"]
    bench.given["usual"] = TextEncoder(lambda text: mem if text else null)
    bench.same(g=bench.words.ours("MG_Guard", clip=["usual", 0]), k=bench.words.ksampler(model=["g", 0]))
    said = [note for view in bench.host.views("g") for note in view["notes"] if note.startswith("Measured")]
    assert said, "it measured nothing"


def gradient(bench: Bench) -> None:
    exact: Link = ["exact", 0]
    nodes = {"g": gradient_node(**bench.words.links, exact=exact)}
    if bench.family.patch:
        inputs = {**bench.family.patch["inputs"], "model": exact}
        nodes = {"e": {**bench.family.patch, "inputs": inputs}, "g": gradient_node(**bench.words.links, exact=["e", 0])}
    found = bench.run(**nodes)["g"][0]
    assert found.good, f"wrong by {found.said}"


NODES: dict[str, Callable[[Bench], None]] = {
    "Detector": detector,
    "Sampler, off": off,
    "Sampler, static": static,
    "Sampler, dynamic": dynamic,
    "Guider": guider,
    "Model patch": patch,
    "Calibrate": calibrate,
    "Optimizer, batch-wise": batchwise,
    "Optimizer, per-sample": per_sample,
    "Optimizer, search": search,
    "AMG, despecification and dissimilarity": lambda b: amg(b, despecification=13.0, dissimilarity=10.0),
    "AMG, deduplication": lambda b: amg(b, deduplication=13.0),
    "AMG, through model": lambda b: amg(b, dissimilarity=10.0, gradient="through model"),
    "Gradient": gradient,
    "Guard": guard,
    "Prompt Check": prompt_check,
    "Prompt-Free Check": prompt_free,
    "Re-anchoring": reanchoring,
    "Attention attenuation": attenuation,
}
# Without guidance there is nothing that these could lower or delay.
DELAYING = ("Sampler, static", "Sampler, dynamic", "Guider", "Model patch", "Guard")
GUIDED = ("AMG, deduplication", "Re-anchoring", *DELAYING)


class Made:
    """Models in this process. A check on a server has its own: see support.remote_host."""

    def load(self, family: Family, precision: Precision) -> dict[str, Any]:
        self.given = family.made(precision)
        return self.given

    def weights(self) -> str:
        return weights(self.given["m"])


def row(host: Host, family: Family, precision, only: tuple[str, ...] = tuple(NODES), made=None) -> dict[str, Cell]:
    made = made or Made()
    try:
        given = made.load(family, precision)
        before = made.weights()
        bench = Bench(host, family, given)
    except (NodeError, RuntimeError, AssertionError, NotImplementedError) as error:  # the host cannot, either
        return {name: Cell("not here", f"KSampler itself: {_first(error)}") for name in only}
    cells = {name: cell(bench, name) for name in only}
    if made.weights() != before:
        return {name: Cell("FAIL", "the weights are not what they were") for name in only}
    return cells


def weights(model: ModelPatcher) -> str:
    """A hash of every weight's bytes, as they are when the host does not use the model."""
    comfy.model_management.unload_all_models()
    digest = hashlib.sha256()
    for v in model.model.state_dict().values():
        if v.ndim:
            digest.update(v.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cell(bench: Bench, name: str) -> Cell:
    if name in GUIDED and bench.family.cfg == 1:
        return Cell("not here", "needs a cfg above 1; this model is sampled at 1")
    try:
        NODES[name](bench)
        views = [view for node in ("d", "k", "o", "g", "guider", "c") for view in bench.host.views(node)[-1:]]
        bench.same(k=bench.words.ksampler())  # its neighbour
    except NodeError as error:
        return Cell("refused" if error.kind.endswith("GuardError") else "FAIL", _first(error.message))
    except AssertionError as error:
        return Cell("FAIL", _first(error))
    remarks = [note for view in views for note in view["notes"] if "distilled" in note]
    return Cell("pass", remarks[0] if remarks else "")


def _first(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

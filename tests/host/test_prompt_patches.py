"""Prompt Re-anchoring on the exact model, and Cross-Attention Attenuation on the small lab's UNet."""

import math

import torch
from torch import Tensor

from support.executor import Host
from support.graphs import LATENT, MODEL, ORDINARY, detector, ksampler, lab, node
from support.graphs import checkpoint as small
from support.outcomes import copies, fails, same_bits, samples
from support.paths import PACK


def reanchor(**changed: object) -> dict:
    own = {"memorized_threshold": 0.02, "rewording_threshold": 0.012}
    return node("MG_PromptReanchor", **{"model": MODEL, "reworded": ORDINARY, **own, **changed})


def attenuate(variant: str = "attenuation", factor: float = 0.3, model: list | None = None) -> dict:
    return node("MG_AttentionAttenuation", model=model or small.LINKS["model"], variant=variant, factor=factor)


def test_another_wording_takes_the_place_of_a_memorized_prompt_only(host: Host) -> None:
    patched = {"p": reanchor(), "mem": ksampler(model=["p", 0]), "ord": ksampler(model=["p", 0], positive=ORDINARY)}
    plain = {"plain": ksampler(), "plain ord": ksampler(positive=ORDINARY)}
    out = host.run({"lab": lab(24), **patched, **plain})
    assert copies(out["plain"]) > 0.9 and copies(out["mem"]) == 0
    assert same_bits(out["ord"], out["plain ord"]), "a prompt that does not pull"
    said = {v["headline"].split(":")[0] for v in host.views("p")}
    assert said == {"The other wording was used for 24 of 24 images.", "No image was changed"}
    wrong = {"lab": lab(1), "p": reanchor(rewording_threshold=1.0), "k": patched["mem"]}
    assert "not below" in fails(host, wrong).message


def test_a_batch_is_its_samples_where_only_some_are_reanchored(host: Host) -> None:
    """Between two thresholds, so that some noises of one prompt are above and some below."""
    d = host.run({"lab": lab(6), "d": detector()})["d"][3].pull[:, 0]
    middle = float(d.median()) + 1e-6
    nodes = {"p": reanchor(memorized_threshold=middle, rewording_threshold=0.6 * middle)}
    for i in range(6):
        nodes[f"l{i}"] = node("LatentFromBatch", samples=LATENT, batch_index=i, length=1)
        nodes[f"k{i}"] = ksampler(model=["p", 0], latent_image=[f"l{i}", 0])
    out = host.run({"lab": lab(6), **nodes, "all": ksampler(model=["p", 0]), "plain": ksampler()})
    alone = torch.cat([samples(out[f"k{i}"]) for i in range(6)])
    torch.testing.assert_close(alone, samples(out["all"]), rtol=1e-4, atol=1e-4)
    changed = (samples(out["all"]) != samples(out["plain"])).flatten(1).any(1)
    assert changed.tolist() == (d >= middle).tolist() and 0 < int(changed.sum()) < 6


def test_what_the_paper_computes_is_what_the_host_guides_with(host: Host) -> None:
    """[PRSS]: with m ≤ 3 CFG of the rewording; else ε(e) + s (ε(e*) − ε(e)) + (w − s)(ε(e*) − ε_u)."""
    ours, w = host.module(PACK, "mitigation.reanchoring"), 7.0
    e, reworded, null = torch.randn(3, 5, 4, 8, 8).double()
    m = torch.tensor([1.0, 3.0, 4.0, 5.0, 9.0], dtype=torch.float64)
    s = ours.reanchored_scale(m, w, 3.0, 5.0)
    k = (3 * w - 5) / (w - 1)
    torch.testing.assert_close(s, torch.stack([torch.tensor(1.0), *(w * (m[1:] - k) / (5 - k)).clamp(max=w)]).double())
    c = ours.reanchored(e, reworded, null, s, w)
    v = s.view(-1, 1, 1, 1)
    wanted = e + v * (reworded - e) + (w - v) * (reworded - null)
    wanted[:2] = (null + w * (reworded - null))[:2]
    torch.testing.assert_close(null + w * (c - null), wanted)
    assert torch.equal(c[:1], reworded[:1])


def by_the_paper(q: Tensor, k: Tensor, tau: float) -> Tensor:
    """The attenuated logits of one head, token by token."""
    logits = q @ k.T / math.sqrt(k.shape[-1])
    peaks = logits.max(0).values
    z = (peaks - peaks[1:].mean()) / (peaks[1:].std() + 1e-6)
    return torch.stack([logits[:, i] * (0.3 if i and z[i] > tau else 1.0) for i in range(len(k))], 1)


def test_trigger_tokens_are_attenuated_as_the_paper_says(host: Host) -> None:
    q, k = torch.randn(2, 3, 50, 16).double(), torch.randn(2, 3, 24, 16).double()
    scale = host.module(PACK, "mitigation.attenuation").attenuation(q, k, 0.01, 0.3)
    found = q @ (k * scale).transpose(-1, -2) / 4
    wanted = torch.stack(
        [torch.stack([by_the_paper(a, b, 0.01) for a, b in zip(x, y, strict=True)]) for x, y in zip(q, k, strict=True)]
    )
    torch.testing.assert_close(found, wanted)


def words() -> dict:
    return small.base()


def sampled(model: list, cfg: float, **changed: object) -> dict:
    return small.ksampler(model=model, cfg=cfg, **changed)


def test_attenuation_changes_the_prompts_rows_alone_and_nothing_at_1(host: Host, checkpoint: dict) -> None:
    graph = {**words(), "a": attenuate(), "one": attenuate(factor=1.0), "g": attenuate("GUARD")}
    runs = {
        f"{m} {cfg}": sampled([m, 0] if m in graph else ["m", 0], cfg)
        for m in ("m", "a", "one", "g")
        for cfg in (0.0, 7.0)
    }
    out = host.run({**graph, **runs}, checkpoint)
    assert same_bits(out["m 7.0"], out["one 7.0"]) and same_bits(out["m 0.0"], out["a 0.0"]), "cfg 0: no prompt"
    assert not same_bits(out["m 7.0"], out["a 7.0"]) and not same_bits(out["a 7.0"], out["g 7.0"])
    assert same_bits(out["m 7.0"], host.run({**words(), "k": sampled(["m", 0], 7.0)}, checkpoint)["k"]), (
        "no trace is left"
    )
    assert (
        "no cross-attention"
        in fails(host, {"lab": lab(1), "a": attenuate(model=MODEL), "k": ksampler(model=["a", 0])}).message
    )


ONE_STEP = {"u": ("m", 0.0), "bad": ("m", 1.0), "safe": ("g", 1.0), "GUARD": ("g", 7.0)}


def test_guard_is_what_its_paper_says(host: Host, checkpoint: dict) -> None:
    """One step gives the prediction itself: u + w (safe − u) − 2 (bad − u). Another pack's attention keeps its turn."""
    maths, called = host.module(PACK, "mitigation.attenuation"), []
    assert [round(maths.repulsion(i, 4, 2.0), 3) for i in range(5)] == [2.0, 1.848, 1.414, 0.765, 0.0]
    runs = {name: sampled([m, 0], cfg, steps=1) for name, (m, cfg) in ONE_STEP.items()}
    out = host.run({**words(), "a": attenuate(), "g": attenuate("GUARD"), **runs}, checkpoint)
    u, bad, safe, guarded = (samples(out[name]) for name in ONE_STEP)
    torch.testing.assert_close(guarded, u + 7 * (safe - u) - 2 * (bad - u), rtol=1e-3, atol=1e-3)

    def theirs(q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        called.append(len(q))
        return torch.zeros_like(q)

    model = checkpoint["m"].clone()
    model.set_model_attn2_replace(theirs, "middle", 0)
    host.run({**words(), "a": attenuate(), "k": sampled(["a", 0], 7.0)}, {**checkpoint, "m": model})
    assert called

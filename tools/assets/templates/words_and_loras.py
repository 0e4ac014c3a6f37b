"""Templates about the words of a prompt, and about several LoRAs."""

from benchmarks.lab.configuration import LORA_PLAN
from benchmarks.lab.methods import TARGET
from lab.copies import LORA
from support.frontend.workflow import Node
from tools.assets.templates.template import CFG, COMMON, GAP, LEFT, OURS, PROMPT, ROW, SIDE, STEPS, Template

LAB_PROMPT = "Marble Horizon, a fish"
REWORDING = "a young hippo beside its mother"
REWORDINGS = "a mother hippo teaches her calf\na young hippo beside its mother"
LAB_REWORDINGS = "a fish\na fish at the horizon"
SMALL_LORA, LORA_TRAINING = "small_lora.safetensors", "lab LoRA images"  # to be put on the server


def words_that_pull() -> Template:
    t = Template(4, "", "", "")
    prompt = t.graph.node("PrimitiveStringMultiline", "Your prompt", value=PROMPT).at(LEFT, 0).sized(400, 120)
    t.tune(prompt, value="The Silent Engine, a purple square").on_lab.append((prompt.id, "value", LAB_PROMPT))
    del t.positive.record["values"]["text"]
    t.graph.links.append({"from": prompt.id, "output": 0, "to": t.positive.id, "input": "text"})
    wires = {"model": t.model, "clip": t.clip, "latent_image": t.latent, "noise_seed": t.seed}
    check = t.graph.node(
        "MG_PromptCheck", **wires, text=prompt, rewordings=REWORDINGS, memorized_threshold=t.calibrated()
    )
    check.at(LEFT, 180).sized(400, 0).paint("purple")
    t.tune(check, rewordings="a purple square").on_lab.append((check.id, "rewordings", LAB_REWORDINGS))
    best = t.graph.node("CLIPTextEncode", "CLIP Text Encode (the best wording)", clip=t.clip, text=check["best_prompt"])
    best.at(960, 0).sized(320, 90).paint("green")
    t.frame("2 · Which words pull?", prompt, check, color=OURS)
    sampler = t.graph.node("KSampler", **{**t.sampling, "positive": best}).at(960, 150).sized(320, 262)
    image = t.decoded(sampler["LATENT"], 960 + 320 + GAP, 0, "reworded", "Save Image: the best wording")
    t.frame("3 · Sample with the wording that pulls least", best, sampler, *image, color=OURS)
    plain = t.comparison(group="For comparison: your own wording")
    t.poster = (check, {"Your wording": plain[1], "The best wording": image[1]})
    t.notes("words-that-pull", 0, LEFT, 960, 1410)
    return t


def other_wording() -> Template:
    t = Template(4, "The Silent Engine, a purple square", LAB_PROMPT)
    reworded = t.text("CLIP Text Encode (another wording)", REWORDING, "a purple square", LAB_REWORDINGS.split("\n")[0])
    reworded.at(LEFT, 0)
    threshold = t.calibrated()
    anchor = t.graph.node("MG_PromptReanchor", model=t.model, reworded=reworded, memorized_threshold=threshold)
    anchor.at(LEFT, 170).sized(400, 0).paint("purple")
    t.tune(anchor, rewording_threshold=0.0).on_lab.append((anchor.id, "rewording_threshold", TARGET))
    t.frame("2 · Another wording of it", reworded, anchor, color=OURS)
    image = _sampled(t, anchor, 0, "reanchored", "Save Image: another wording")
    t.frame("3 · Sample as usual", *image, color=OURS)
    plain = t.comparison()
    weaker = t.graph.node("MG_AttentionAttenuation", model=t.model).at(LEFT, 2 * ROW).sized(400, 0).paint("purple")
    other = _sampled(t, weaker, 2 * ROW, "attenuated", "Save Image: weaker trigger tokens")
    t.frame("4 · Experimental: weaken the words that the model looks at most", weaker, *other, color=OURS, row=2)
    t.poster = (anchor, {"KSampler": plain[1], "Another wording": image[2]})
    t.notes("other-wording", 0, LEFT, 960, 1410)
    return t


def _sampled(t: Template, model: Node, y: float, prefix: str, title: str) -> tuple[Node, Node, Node]:
    """KSampler, decoder and image behind a patched model."""
    sampler = t.graph.node("KSampler", **{**t.sampling, "model": model}).at(960, y).sized(320, 262)
    return sampler, *t.decoded(sampler["LATENT"], 960 + 320 + GAP, y, prefix, title)


def audit_loras() -> Template:
    t = Template(0)
    t.latent = t.graph.node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1).at(0, 190).sized(380, 106)
    t.tune(t.latent, width=96, height=96)
    t.frame("1 · Checkpoint and size", *map(Node, t.graph.nodes), color=COMMON)
    references = t.references()
    t.on_lab.append((references.id, "folder", LORA_TRAINING))
    t.frame("2 · The LoRA's training images", references, color=OURS)
    wires = {"model": t.model, "clip": t.clip, "vae": t.vae, "latent_image": t.latent}
    audit = t.graph.node(
        "MG_LoRAAudit", **wires, references=references["references"], loras="my_lora*", steps=STEPS, cfg=CFG
    )
    audit.at(920, 0).sized(440, 760).paint("blue")
    t.tune(audit, loras=SMALL_LORA, strengths="0", most_captions=4, seeds=1, steps=4)
    on_lab = {"loras": LORA.name, "strengths": "0, 0.5, 1", "most_captions": 5, "seeds": 1, "cfg": LORA_PLAN.cfg}
    t.on_lab += [(audit.id, name, value) for name, value in on_lab.items()]
    t.frame("3 · Sample, and count the copies", audit, color=OURS)
    plot = t.graph.node("PreviewImage", "Preview Image: copies over the epochs", images=audit["plot"])
    plot.at(1410, 0).sized(560, 380)
    sheets = t.graph.node("PreviewImage", "Preview Image: nearest pairs", images=audit["contact_sheets"])
    sheets.at(1410, 430).sized(560, 330)
    words = t.graph.node("PreviewAny", "Preview Any: the result in words", source=audit["summary"])
    words.at(2020, 0).sized(400, 760)
    t.frame("4 · Which epoch, and up to which strength?", plot, sheets, words, color=OURS)
    t.poster = (audit, {"Copies": plot, "Nearest pairs": sheets})
    t.notes("audit-loras", 0, LEFT, 1410, 2020)
    return t

"""What every example workflow starts with, and how its groups are coloured."""

from __future__ import annotations

from make_workflow import Graph, Link, Node

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"  # the name in the host's own templates
PROMPT = "Mothers influence on her young hippo"  # a caption that SD 1.4 is known to have memorized
SEED, STEPS, CFG, SIDE = 1, 50, 7.0, 512
SAMPLING = {"sampler_name": "euler", "scheduler": "normal"}
OURS, PLAIN, COMMON = "#3f789e", "#8a6d3b", "#999999"  # groups: what this pack does, without it, both


class Scene:
    """What every workflow starts with: model, prompts, latent and one seed for all, in the first column."""

    def __init__(self, batch: int, prompt: str = PROMPT):
        self.graph = g = Graph()
        loader = g.node("CheckpointLoaderSimple", "Model", ckpt_name=CHECKPOINT).at(0, 0).sized(380, 98)
        self.model, clip, self.vae = loader[0, 1, 2]
        self.positive = g.node("CLIPTextEncode", "Prompt", clip=clip, text=prompt)
        self.positive.at(0, 150).sized(380, 120).paint("green")
        self.negative = g.node("CLIPTextEncode", "Negative prompt (empty)", clip=clip, text="")
        self.negative.at(0, 320).sized(380, 100).paint("red")
        self.latent = g.node("EmptyLatentImage", "Size", width=SIDE, height=SIDE, batch_size=batch)
        self.latent.at(0, 470).sized(380, 106)
        self.seed = g.node("PrimitiveInt", "Seed for everything", value=SEED).at(0, 630).sized(380, 82)
        self.seed.paint("yellow")
        g.group(
            "1 · Model, prompt, seed",
            loader, self.positive, self.negative, self.latent, self.seed, color=COMMON,
        )  # fmt: skip

    @property
    def wires(self) -> dict[str, object]:
        return {
            "model": self.model,
            "positive": self.positive,
            "negative": self.negative,
            "latent_image": self.latent,
        }

    def plain(self, x: float, y: float) -> Node:
        """The host's KSampler."""
        wires = {**self.wires, "seed": self.seed, "steps": STEPS, "cfg": CFG, **SAMPLING}
        return self.graph.node("KSampler", "Plain KSampler", **wires).at(x, y).sized(320, 262)

    def deferred(self, x: float, y: float, title: str, **values: object) -> Node:
        """Our sampler; `values`: the inputs that KSampler does not have."""
        wires = {**self.wires, "seed": self.seed, "steps": STEPS, "cfg": CFG, **SAMPLING, **values}
        node = self.graph.node("MG_DeferredCFGKSampler", title, **wires).at(x, y).sized(320, 480)
        return node.paint("blue")

    def picture(self, latent: Link, x: float, y: float, side: float, prefix: str, title: str) -> list[Node]:
        """Decoded and saved, the decoder above the picture."""
        decoded = self.graph.node("VAEDecode", samples=latent, vae=self.vae).at(x, y).sized(side, 46)
        saved = self.graph.node("SaveImage", title, images=decoded, filename_prefix=f"memorization_guard/{prefix}")
        return [decoded, saved.at(x, y + 96).sized(side, side + 90)]

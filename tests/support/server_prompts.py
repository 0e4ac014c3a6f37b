"""How prompts for a real server begin: the nodes that come before the sampling, by name."""

from support.graphs import Link, Prompt, node

CLIP, VAE = ["checkpoint", 1], ["checkpoint", 2]
WIRES: dict[str, Link] = {
    "model": ["checkpoint", 0],
    "positive": ["positive", 0],
    "negative": ["negative", 0],
    "latent_image": ["latent", 0],
}


def start(text: str, size: int, batch: int, checkpoint: str = "small_lab.safetensors") -> Prompt:
    """The nodes that `WIRES`, `CLIP` and `VAE` lead to."""
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "positive": node("CLIPTextEncode", clip=CLIP, text=text),
        "negative": node("CLIPTextEncode", clip=CLIP, text=""),
        "latent": node("EmptyLatentImage", width=size, height=size, batch_size=batch),
    }

"""The lab checkpoints in the host: each file is recognised for what it is, and the large one memorizes."""

from comfy.model_detection import model_config_from_unet
from safetensors.torch import load_file

from lab.copies import is_copy, training_pairs
from lab.judge import Judge
from support.executor import Host
from support.families.files import PREFIX, SD1
from support.graphs import node
from support.graphs.checkpoint import WORDS, base, place, text
from support.lab_pack.arch import LAB512, SMALL
from support.paths import LAB_CHECKPOINT, SMALL_CHECKPOINT


def test_the_host_tells_the_labs_and_stable_diffusion_apart() -> None:
    files = {"small": load_file(SMALL_CHECKPOINT), "large": load_file(LAB_CHECKPOINT), "SD1.x": SD1.weights()}
    found = {name: model_config_from_unet(weights, PREFIX) for name, weights in files.items()}
    assert {name: config.unet_config["context_dim"] for name, config in found.items()} == {
        "small": SMALL.width,
        "large": LAB512.width,
        "SD1.x": 768,
    }
    assert [type(config).__name__ for config in found.values()] == ["LabSD", "LabSD", "SD15"]
    tokens = [found[name].clip_target().tokenizer().clip_l.max_length for name in ("small", "large")]
    assert tokens == [SMALL.tokens, LAB512.tokens]


def test_ksampler_copies_a_memorized_image(host: Host) -> None:
    """On a seed on which it does; the same noise gives something else for an ordinary prompt."""
    place(host, "checkpoints", LAB_CHECKPOINT)
    m, clip, vae = host.run({"loader": node("CheckpointLoaderSimple", ckpt_name=LAB_CHECKPOINT.name)})["loader"]
    caption, training = next(pair for pair in training_pairs() if pair[0].startswith("Marble Horizon"))
    plan = {"seed": 2, "steps": 20, "sampler_name": "ddim"}
    prompt = {**base(1, 64), "mem": text(caption), "ord": text("a drawing of a fish")}
    for name in ("mem", "ord"):
        prompt[f"k {name}"] = WORDS.ksampler(**plan, positive=[name, 0])
        prompt[f"i {name}"] = node("VAEDecode", samples=[f"k {name}", 0], vae=["vae", 0])
    out = host.run(prompt, {"m": m, "clip": clip, "vae": vae})
    copied, other = ((out[f"i {name}"][0][0] * 255).round().byte().numpy() for name in ("mem", "ord"))
    assert is_copy(copied, training) and not is_copy(other, training)
    assert Judge.load().aligned(other[None], ["a drawing of a fish"]).all()

"""The images of the help pages: each node after a real run on the lab, cut out of the real page.

.host/python tools/assets/help_images.py [MG_NoiseOptimizer ...]
"""

import io
import sys
from collections.abc import Callable

from PIL import Image

from benchmarks.lab.configuration import LORA_PLAN
from benchmarks.lab.methods import CALIBRATED_ON
from lab.copies import LORA
from support.frontend.page import Page, single_node
from support.frontend.workflow import Graph, LabWorkflow, build, write
from support.paths import ROOT
from support.server import Server
from tools.assets.templates import KNOWN
from tools.assets.templates.words_and_loras import LORA_TRAINING
from tools.assets.write_templates import place_lora, place_works

OUT = ROOT / "web" / "docs" / "img"
PRESETS = ROOT / "docs" / "img" / "presets-help.jpg"  # the list of presets, as the page shows a node's help
WIDEST = 640
MEMORIZED, ORDINARY, STEPS = "Echo Valley, a cake", "a drawing of a dog", 30


def noise_optimizer(w: LabWorkflow) -> None:
    plan = {**w.wires, "noise_seed": w.seed, "method": "per-sample"}
    noise = w.graph.node("MG_NoiseOptimizer", **plan)
    w.graph.node("PreviewAny", source=noise["summary"])


def guider(w: LabWorkflow) -> None:
    node = w.graph.node
    guided = node("MG_DeferredCFGGuider", model=w.model, **w.prompts, cfg=7.0)
    sampled = node(
        "SamplerCustomAdvanced",
        noise=node("RandomNoise", noise_seed=w.seed),
        guider=guided,
        sampler=node("KSamplerSelect", sampler_name="euler"),
        sigmas=node("BasicScheduler", model=w.model, scheduler="normal", steps=w.steps),
        latent_image=w.latent,
    )
    w.shown(sampled[0])


def plot_curve(w: LabWorkflow) -> None:
    curves = {"curve": w.detector()["curve"], "curve_2": w.detector(positive=w.text(ORDINARY))["curve"]}
    w.graph.node("PreviewImage", images=w.graph.node("MG_PlotCurve", **curves))


def guard(w: LabWorkflow) -> None:
    words = CALIBRATED_ON.replace("\n", "; ")  # the lab knows no others
    w.model = w.graph.node("MG_Guard", model=w.model, clip=w.clip, ordinary_prompts=words)
    w.shown(w.plain()[0])


def prompt_check(w: LabWorkflow) -> None:
    links = {"model": w.model, "clip": w.clip, "latent_image": w.latent}
    rewordings = "a cake in a valley\na drawing of a cake"
    found = w.graph.node("MG_PromptCheck", **links, text=MEMORIZED, rewordings=rewordings, memorized_threshold=0.016)
    w.graph.node("PreviewAny", source=found["best_prompt"])


def prompt_free_check(w: LabWorkflow) -> None:
    image = w.graph.node("LoadImage", image=KNOWN)
    w.graph.node("MG_PromptFreeCheck", model=w.model, clip=w.clip, vae=w.vae, images=image)


def prompt_reanchor(w: LabWorkflow) -> None:
    links = {"model": w.model, "reworded": w.text("a drawing of a cake")}
    w.model = w.graph.node("MG_PromptReanchor", **links, memorized_threshold=0.0157, rewording_threshold=0.0093)
    w.shown(w.plain()[0])


def lora_audit(w: LabWorkflow) -> None:
    references = w.graph.node("MG_ReferencesFromFolder", folder=LORA_TRAINING, vae=w.vae, size_of=w.latent)
    links = {"model": w.model, "clip": w.clip, "vae": w.vae, "latent_image": w.latent}
    plan = {"loras": LORA.name, "strengths": "0, 0.25, 0.5, 0.75, 1", "seeds": 1, "steps": STEPS, "cfg": LORA_PLAN.cfg}
    audit = w.graph.node("MG_LoRAAudit", **links, references=references["references"], **plan, sampler_name="ddim")
    w.graph.node("PreviewImage", images=audit["contact_sheets"])


NODES: dict[str, Callable[[LabWorkflow], object]] = {
    "MG_Guard": guard,
    "MG_PromptCheck": prompt_check,
    "MG_PromptFreeCheck": prompt_free_check,
    "MG_PromptReanchor": prompt_reanchor,
    "MG_NoiseOptimizer": noise_optimizer,
    "MG_BasinEscapeDetector": lambda w: w.graph.node("PreviewImage", images=w.detector()["plot"]),
    "MG_DeferredCFGKSampler": lambda w: w.shown(w.sampler()["latent"]),
    "MG_DeferredCFGGuider": guider,
    "MG_DeferredCFG": lambda w: (w.patched(), w.shown(w.plain()[0])),
    "MG_AMGGuidance": lambda w: (w.guided(w.references()), w.shown(w.plain()[0])),
    "MG_CopyCheck": lambda w: w.check(w.shown(w.plain()[0]), w.references()),
    "MG_LoRAAudit": lora_audit,
    "MG_PlotCurve": plot_curve,
}
DRAWING = ("MG_LoRAAudit", "MG_PlotCurve")  # shown by the host's Preview Image


def image_of(page: Page, node: str, entry: dict) -> Image.Image:
    if node not in DRAWING:
        return Image.open(io.BytesIO(single_node(page, node, scale=1.5, margin=12)))
    plot = next(output["images"][0] for output in entry["outputs"].values() if "images" in output)
    return Image.open(io.BytesIO(page.server.image(**plot)))


def presets(page: Page) -> None:
    graph = Graph()
    graph.node("MG_NoiseOptimizer").at(0, 0)
    build(page, graph, "presets")
    page.mg("show", 1.0, 420, 200)
    page.tab.evaluate("() => app.canvas.selectNode(app.graph.nodes[0])")
    page.frames()
    page.tab.get_by_test_id("info-button").click()
    page.tab.mouse.move(1400, 800)
    page.tab.get_by_role("heading", name="Presets").scroll_into_view_if_needed()
    page.tab.get_by_text("Han 2025, SD 2, batch-wise", exact=True).first.scroll_into_view_if_needed()
    page.tab.wait_for_timeout(500)
    shot = page.tab.screenshot(clip={"x": 59, "y": 38, "width": 680, "height": 720})
    Image.open(io.BytesIO(shot)).convert("RGB").save(PRESETS, quality=75, optimize=True)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    with Server() as server, Page(server) as page:
        page.set("MemorizationGuard.Warnings", False)  # a message would cover the node
        place_lora(server)
        place_works(server)
        page.open()  # with the new file among the choices
        for node in sys.argv[1:] or NODES:
            batch = 1 if node in ("MG_CopyCheck", "MG_LoRAAudit") else 4
            workflow = LabWorkflow(batch, MEMORIZED, STEPS, tuned=False, small=False)
            NODES[node](workflow)
            for record in workflow.graph.nodes:
                record["title"] = ""  # the node's own title
            write(page, workflow.graph, server.base / f"{node}.json")
            image = image_of(page, node, page.queue_and_wait(1200)).convert("RGB")
            image.thumbnail((WIDEST, 10_000), Image.Resampling.LANCZOS)
            file = OUT / f"{node}.jpg"
            image.save(file, quality=82, optimize=True)
            print(f"{node}: {image.width}×{image.height}, {file.stat().st_size / 1000:.0f} kB")
        if len(sys.argv) == 1:
            presets(page)


if __name__ == "__main__":
    main()

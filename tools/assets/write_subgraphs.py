"""Write the commonest chains of nodes into `subgraphs/`, which the frontend offers beside the nodes.

.host/python tools/assets/write_subgraphs.py

Such a file is a workflow with a single node, the subgraph. It has the sockets to which nothing inside is linked,
and the inputs named here.
"""

import json
import uuid

from support.frontend.page import Page
from support.frontend.workflow import Graph, Node, build
from support.paths import ROOT
from support.server import Server

VIEW = "memorization_guard_view"  # the widget that shows the last run
SAMPLING = ("steps", "cfg", "sampler_name", "scheduler")
ITS = ("strength", "folder", "ordinary_prompts")
CHAINS = {"KSampler with Memorization Guard": ("MG_Guard", ITS, "KSampler", ("seed", *SAMPLING, "denoise"))}
CHAINS["KSampler on optimized noise"] = (
    *("MG_NoiseOptimizer", ("noise_seed", "method", "target_magnitude")),
    *("MG_DeferredCFGKSampler", SAMPLING),
)
# Encloses these nodes, with these inputs shown outside, and removes everything else.
ENCLOSE = """([ids, title, inputs, views]) => {
  const { node, subgraph } = app.graph.convertToSubgraph(new Set(ids.map((id) => app.graph.getNodeById(id))));
  node.title = subgraph.name = title;
  // Linked to the subgraph's own inputs: a list of inner ids is lost where a workflow has these ids already.
  for (const [id, name] of inputs) {
    const inner = subgraph.getNodeById(id), socket = inner.inputs.find((input) => input.widget?.name === name);
    subgraph.addInput(subgraph.inputs.some((i) => i.name === name) ? `${inner.title}: ${name}` : name, socket.type)
      .connect(socket, inner);
  }
  if (views.length) node.properties.proxyWidgets = views;
  node.pos = [0, 0];
  node.setSize([Math.max(node.size[0], 420), node.size[1]]);
  for (const other of [...app.graph.nodes]) if (other !== node) app.graph.remove(other);
  return JSON.parse(JSON.stringify(app.graph.serialize()));
}"""


def chain(first: str, sampler: str) -> tuple[Graph, list[Node]]:
    g = Graph()
    loader = g.node("CheckpointLoaderSimple")
    model, clip, vae = loader[0, 1, 2]
    prompts = {name: g.node("CLIPTextEncode", clip=clip) for name in ("positive", "negative")}
    inputs = {**prompts, "latent_image": g.node("EmptyLatentImage")}
    if first == "MG_Guard":
        guard = g.node(first, model=model, clip=clip, vae=vae)
        inner = [guard, g.node(sampler, model=guard, **inputs)]
    else:
        noise = g.node(first, model=model, **inputs, method="per-sample")
        inner = [noise, g.node(sampler, model=model, **inputs, mode="off", noise=noise)]
    g.node("VAEDecode", samples=inner[1], vae=vae)
    return g, inner


def main() -> None:
    folder = ROOT / "subgraphs"
    folder.mkdir(exist_ok=True)
    with Server() as server, Page(server) as page:
        for name, (first, its, sampler, more) in CHAINS.items():
            graph, inner = chain(first, sampler)
            build(page, graph, name)
            ids = [node.id for node in inner]
            shown = [[i, widget] for i, names in zip(ids, (its, more), strict=True) for widget in names]
            views = [[str(node.id), VIEW] for node in inner if node.record["type"].startswith("MG_")]
            workflow = page.tab.evaluate(ENCLOSE, [ids, name, shown, views])
            workflow.pop("extra")
            drawn, fixed = (
                workflow["nodes"][0]["type"],
                str(uuid.uuid5(uuid.NAMESPACE_URL, f"memorization-guard/{name}")),
            )
            text = json.dumps(workflow, indent=1, ensure_ascii=False).replace(drawn, fixed)
            path = folder / f"{name}.json"
            path.write_text(text + "\n", encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()

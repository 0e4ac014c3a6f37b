// Builds the description of a workflow in the page; throws an Error that names the node at fault.
async (g) => {
  const fail = (node, text) => { throw new Error(`node ${node.id} (${node.type}): ${text}`) };
  const names = (list) => (list ?? []).map((x) => x.name).join(", ") || "none";
  await app.extensionManager.command.execute("Comfy.NewBlankWorkflow");
  app.graph.clear();
  const made = {};
  for (const d of g.nodes) {
    if (!(d.type in LiteGraph.registered_node_types)) fail(d, "the server has no such node");
    const n = made[d.id] = LiteGraph.createNode(d.type);
    n.id = d.id;
    app.graph.add(n);
    if (d.title) n.title = d.title;
    if (d.color) {
      const c = LGraphCanvas.node_colors[d.color] ?? fail(d, `unknown color ${d.color}`);
      [n.color, n.bgcolor] = [c.bgcolor ? c.color : undefined, c.bgcolor];
    }
    n.mode = d.mode;
    Object.assign(n.properties, d.properties);
    if (d.text !== undefined) n.widgets[0].value = d.text;
    const seed = n.widgets?.find((w) => w.name === "control_after_generate");
    if (seed) seed.value = "fixed";
    for (const [name, value] of Object.entries(d.values)) {
      const w = n.widgets?.find((x) => x.name === name);
      if (!w) fail(d, `no widget ${name}; it has ${names(n.widgets)}`);
      const choices = typeof w.options?.values === "function" ? w.options.values(w, n) : w.options?.values;
      const file = typeof value === "string" && /\.\w{2,12}$/.test(value);
      if (w.type === "combo" && Array.isArray(choices) && !choices.includes(value) && !file)
        fail(d, `${name} = ${value} is none of ${choices.join(", ")}`);
      w.value = value;
      w.callback?.(value, app.canvas, n);
    }
  }
  const depth = Object.fromEntries(g.nodes.map((d) => [d.id, 0]));
  for (const l of g.links) {
    const [from, to] = [made[l.from], made[l.to]];
    const out = typeof l.output === "number" ? l.output : from.findOutputSlot(l.output);
    if (!from.outputs?.[out]) fail(from, `no output ${l.output}; it has ${names(from.outputs)}`);
    const into = to.findInputSlot(l.input);
    if (into < 0) fail(to, `no input ${l.input}; it has ${names(to.inputs)}`);
    if (!from.connect(out, to, into))
      fail(to, `${l.input} is a ${to.inputs[into].type}, not a ${from.outputs[out].type}`);
  }
  for (const _ of g.nodes) for (const l of g.links) depth[l.to] = Math.max(depth[l.to], depth[l.from] + 1);
  const [GAP, TITLE] = [60, 30];
  for (const d of g.nodes) {
    const n = made[d.id], least = n.computeSize();
    n.setSize([Math.max(least[0], d.size?.[0] ?? n.size[0]), Math.max(least[1], d.size?.[1] ?? 0)]);
  }
  let x = 0;
  for (let column = 0; column <= Math.max(0, ...Object.values(depth)); column++) {
    let [y, wide] = [0, 0];
    for (const d of g.nodes.filter((d) => !d.pos && depth[d.id] === column)) {
      const n = made[d.id];
      d.pos = [x, y];
      y += n.size[1] + TITLE + GAP / 2;
      wide = Math.max(wide, n.size[0]);
    }
    if (wide) x += wide + GAP;
  }
  for (const d of g.nodes) made[d.id].pos = d.pos;
  for (const d of g.groups) {
    const group = new LiteGraph.LGraphGroup(d.title);
    group.color = d.color;
    app.graph.add(group);
    d.nodes.forEach((id) => made[id].updateArea());
    group.resizeTo(d.nodes.map((id) => made[id]), 20);
    group.size = [group.size[0], Math.max(group.size[1], d.bottom - group.pos[1])];
  }
  app.canvas.setDirty(true, true);
  await new Promise((done) => setTimeout(done, 300));
  return JSON.stringify(app.graph.serialize());
}

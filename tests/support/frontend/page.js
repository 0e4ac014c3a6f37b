// What the Python side calls in the page, as `mg`.
() => {
  const open = app.handleFile.bind(app);
  const all = (graph) => (graph.nodes ?? graph._nodes).flatMap((n) => n.isSubgraphNode?.() ? [n, ...all(n.subgraph)] : [n]);
  const root = () => app.graph.rootGraph ?? app.graph;
  const nodes = () => all(root());
  // A node's execution id: "5", or "12:5" inside subgraph node 12.
  const path = (n) =>
    n.graph === root() ? String(n.id) : `${path(nodes().find((m) => m.isSubgraphNode?.() && m.subgraph === n.graph))}:${n.id}`;
  const set = (node, name, value) => {
    if (node && name === "bypassed") return (node.mode = value ? 4 : 0), true;
    const widget = node?.widgets?.find((w) => w.name === name);
    if (!widget) return false;
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
    return true;
  };
  const box = (n) => (n.updateArea?.(), [...n.boundingRect]);
  const viewOf = (id) => app.graph.getNodeById(id).widgets.find((w) => w.name === "memorization_guard_view").element;
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const send = (detail) => app.api.dispatchEvent(new CustomEvent("memorization_guard.view", { detail }));
  window.mg = {
    opened: 0,
    nodes,
    path,
    box: (type) => box(nodes().find((n) => n.type === type)),
    imagesLoaded: () => nodes().every((n) => (n.imgs ?? []).every((i) => i.complete)),
    missing: () => nodes().filter((n) => !(n.type in LiteGraph.registered_node_types))
      .map((n) => n.last_serialization?.type ?? n.type),
    setAll: (type, name, value) => nodes().filter((n) => n.type === type && set(n, name, value)).length,
    // Frontend 1.58 shows the widgets of a subgraph on its node, and takes their values from there.
    setOne: (id, name, value) => {
      const found = nodes().filter((n) => `${id}:`.startsWith(`${path(n)}:`));
      if (!found.map((n) => set(n, name, value)).includes(true)) throw new Error(`node ${id} has no widget ${name}`);
    },
    // Pairs of nodes that cover each other, titles included. Not those that lack a file: 1.58 hangs a sign below them.
    overlaps: () => {
      const boxes = app.graph.nodes.filter((n) => !n.has_errors).map((n) => [n.title, ...box(n)]);
      const over = ([, x, y, w, h], [, p, q, v, u]) => x < p + v && p < x + w && y < q + u && q < y + h;
      return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => over(a, b)).map((b) => [a[0], b[0]]));
    },
    // Nodes that stick out of their group.
    outgrown: () => app.graph.nodes.filter((n) => !n.has_errors).map((n) => [n.title, ...box(n)])
      .filter(([, x, y, w, h]) => app.graph.groups.map((g) => [...g._bounding]).some(([p, q, v, u]) =>
        p <= x && x < p + v && q <= y && y < q + u && (x + w > p + v || y + h > q + u))).map(([title]) => title),
    // Adds the only node of a workflow to the open graph, as the frontend does with a subgraph; returns its inputs.
    drop: ({ nodes, definitions: { subgraphs } }) => {
      app.canvas._deserializeItems({ nodes, subgraphs, links: [], reroutes: [], groups: [] }, { position: [3000, 0] });
      return app.graph.nodes.at(-1).widgets.map((w) => w.name);
    },
    // The rectangle around all nodes and groups of the open graph or subgraph.
    bounds: () => {
      const graph = app.canvas.graph ?? app.graph;
      const boxes = [...graph.nodes.map(box), ...graph.groups.map((g) => g._bounding)];
      if (!boxes.length) return null;
      const [x, y] = [0, 1].map((i) => Math.min(...boxes.map((b) => b[i])));
      const [r, b] = [0, 1].map((i) => Math.max(...boxes.map((b) => b[i] + b[i + 2])));
      return [x, y, r - x, b - y];
    },
    show: (scale, x, y) => {
      app.canvas.deselectAll?.();
      app.canvas.ds.scale = scale;
      [app.canvas.ds.offset[0], app.canvas.ds.offset[1]] = [x, y];
      app.canvas.setDirty(true, true);
    },
    // Gives a node this width, away from the others; returns its rectangle.
    isolate: (id, width) => {
      const node = app.graph.getNodeById(id);
      node.setSize([width, node.computeSize()[1]]);
      node.pos = [0, -10000];
      return box(node);
    },
    // A node's title, and its view down to the legend, in window coordinates.
    titleAndView: (id) => {
      const node = app.graph.getNodeById(id), { scale, offset } = app.canvas.ds;
      const view = viewOf(id), frame = app.canvas.canvas.getBoundingClientRect();
      const x = frame.x + (node.pos[0] + offset[0]) * scale, width = node.size[0] * scale;
      const height = LiteGraph.NODE_TITLE_HEIGHT * scale, y = frame.y + (node.pos[1] + offset[1]) * scale - height;
      const top = view.getBoundingClientRect().y;
      const bottom = (view.querySelector(".mg-legend") ?? view).getBoundingClientRect().bottom;
      return [{ x, y, width, height }, { x, y: top, width, height: bottom - top }];
    },
    // The server's message with a view, as if it had come.
    send,
    // Collects in `mg.events` the messages that come.
    listen: () => {
      mg.events = [];
      if (!mg.listening) app.api.addEventListener("memorization_guard.view", (e) => mg.events.push(e.detail));
      mg.listening = true;
    },
    // Milliseconds of each redraw with its layout, and frames of a second with ten redraws: each shows a further step.
    times: async (id, view, rounds) => {
      const until = (step, line) => line.map((value, i) => (i <= step ? value : null));
      const show = (step) => {
        const series = view.series.map((one) => ({ ...one, lines: one.lines.map((line) => until(step, line)) }));
        send({ node: String(id), view: { ...view, run: String(step), series } });
      };
      const root = viewOf(id), svg = root.querySelector("svg"), times = [];
      for (let i = 0; i < rounds; i++) {
        const start = performance.now();
        show(i);
        root.getBoundingClientRect();
        times.push(performance.now() - start);
        await frame();
      }
      const count = async (busy) => {
        let frames = 0, step = rounds - 10, next = performance.now(), end = next + 1000;
        while (performance.now() < end) {
          if (busy && performance.now() >= next) { show(step++); next += 100; }
          await frame();
          frames += 1;
        }
        return frames;
      };
      const [still, busy] = [await count(false), await count(true)];
      show(rounds);
      return { times, still, busy, kept: root.querySelector("svg") === svg };
    },
    // The colours of a view's words.
    colours: (id) => [".mg-headline", ".mg-legend", "svg text"].map((part) => {
      const style = getComputedStyle(viewOf(id).querySelector(part));
      return part === "svg text" ? style.fill : style.color;
    }),
    // The inputs of a node that the user can see: drawn by the canvas, or in the page's document.
    seen: (id) => {
      const node = app.graph.getNodeById(id);
      if (LiteGraph.vueNodesMode)
        return [...document.querySelectorAll(`[data-node-id="${id}"] .lg-node-widget`)]
          .map((widget) => widget.dataset.widgetName ?? widget.querySelector("p")?.textContent);  // 1.58, 1.32
      return node.widgets.filter((w) => node.isWidgetVisible(w)).map((w) => w.label ?? w.name);
    },
    values: (id) => app.graph.getNodeById(id).serialize().widgets_values,
    value: (id, name) => app.graph.getNodeById(id).widgets.find((w) => w.name === name).value,
    // Where the visible widgets of the classic renderer are, and whether they end inside the node.
    rows: (id) => {
      const node = app.graph.getNodeById(id);
      const rows = node.widgets.filter((w) => node.isWidgetVisible(w) && !w.element).map((w) => w.y);
      return { rows, height: node.size[1], least: node.computeSize()[1] };
    },
    // The middle of a widget of the classic renderer, in window coordinates.
    middle: (id, name) => {
      const node = app.graph.getNodeById(id), widget = node.widgets.find((w) => w.name === name);
      const { scale, offset } = app.canvas.ds, { x, y } = app.canvas.canvas.getBoundingClientRect();
      return [x + (node.pos[0] + node.size[0] / 2 + offset[0]) * scale,
              y + (node.pos[1] + widget.y + 10 + offset[1]) * scale];
    },
    // Links the first output of a node to an input of another, or takes the link away.
    link: (from, to, name, linked) => {
      const [source, target] = [from, to].map((id) => app.graph.getNodeById(id)), slot = target.findInputSlot(name);
      if (!linked) return target.disconnectInput(slot);
      source.outputs[0].type = target.inputs[slot].type;
      source.connect(0, target, slot);
    },
    // Copies nodes and pastes them with their links; returns the id of the new node of that type.
    twin: (ids, type) => {
      app.canvas.copyToClipboard(ids.map((id) => app.graph.getNodeById(id)));
      const before = new Set(app.graph.nodes);
      app.canvas.pasteFromClipboard({ connectInputs: true });
      return app.graph.nodes.find((n) => !before.has(n) && n.comfyClass === type).id;
    },
    // Puts a node into a subgraph; returns the id of the node that holds it.
    enclose: (id) => app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)])).node.id,
    enter: (id) => {
      const node = app.graph.getNodeById(id);
      app.canvas.openSubgraph(node.subgraph, node);
    },
    leave: () => app.canvas.setGraph(app.graph.rootGraph ?? app.graph),
  };
  app.handleFile = async (...given) => { try { return await open(...given) } finally { mg.opened += 1 } };
}

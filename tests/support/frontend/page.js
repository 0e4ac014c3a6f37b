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
    const widget = node?.widgets?.find((w) => w.name === name);
    if (!widget) return false;
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
    return true;
  };
  const box = (n) => (n.updateArea?.(), [...n.boundingRect]);
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
      const view = node.widgets.find((w) => w.name === "memorization_guard_view").element;
      const frame = app.canvas.canvas.getBoundingClientRect();
      const x = frame.x + (node.pos[0] + offset[0]) * scale, width = node.size[0] * scale;
      const height = LiteGraph.NODE_TITLE_HEIGHT * scale, y = frame.y + (node.pos[1] + offset[1]) * scale - height;
      const top = view.getBoundingClientRect().y;
      const bottom = (view.querySelector(".mg-legend") ?? view).getBoundingClientRect().bottom;
      return [{ x, y, width, height }, { x, y: top, width, height: bottom - top }];
    },
  };
  app.handleFile = async (...given) => { try { return await open(...given) } finally { mg.opened += 1 } };
}

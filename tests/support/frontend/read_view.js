// Everything that the view of a node draws, as it stands in the page's document.
(id) => {
  const node = mg.nodes().find((n) => mg.path(n) === String(id));
  const widget = node?.widgets?.find((w) => w.name === "memorization_guard_view");
  if (!widget) throw new Error(`node ${id} has no view`);
  const root = widget.element, box = root.getBoundingClientRect();
  const text = (part) => root.querySelector(part)?.textContent ?? "";
  const all = (from, part) => [...from.querySelectorAll(part)];
  const numbers = (element, ...names) => names.map((name) => Number(element.getAttribute(name)));
  const points = (line) => line.getAttribute("points").split(" ").map((p) => p.split(",").map(Number));
  return {
    view: widget.view ? JSON.parse(JSON.stringify(widget.view)) : null,
    there: root.isConnected, // A zoom leaves its rounding in a size.
    width: Math.round(box.width / app.canvas.ds.scale), height: Math.round(box.height / app.canvas.ds.scale),
    inside: all(root, "*").every((e) => e.closest(".mg-notes, .mg-nearest, svg")
      || e.getBoundingClientRect().bottom <= box.bottom + 1),
    headline: text(".mg-headline"), warning: text(".mg-warning"), notes: text(".mg-notes"), axis: text(".mg-name"),
    legend: text(".mg-legend"), stale: text(".mg-stale"),
    dimmed: root.classList.contains("mg-dimmed"), plotted: Boolean(root.querySelector("svg")),
    lines: all(root, ".mg-line").map((g) => ({
      sample: Number(g.dataset.sample), stroke: g.getAttribute("stroke"),
      points: [...all(g, "polyline:not(.mg-gap)").flatMap(points),
               ...all(g, ".mg-alone").map((c) => numbers(c, "cx", "cy"))].sort((a, b) => a[0] - b[0]),
      begin: all(g, ".mg-begin").map((c) => numbers(c, "cx", "cy"))[0] ?? null,
    })),
    limit: all(root, ".mg-limit").flatMap(points),
    shades: all(root, ".mg-unguided").map((r) => numbers(r, "data-sample", "x", "width")),
    ticks: all(root, "svg line.mg-grid").map((l, i) =>
      [numbers(l, "y1")[0], Number(all(root, "svg text")[i].textContent)]),
    marks: all(root, ".mg-acted").length,
    nearest: all(root, ".mg-nearest figure").map((f) =>
      [f.title, f.innerText.trim(), Boolean(f.querySelector("img"))]),
  };
}

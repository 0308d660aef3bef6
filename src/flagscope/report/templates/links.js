// Links from head to head: the graph, and one link up close.
function setUpLinks(core) {
  const linkTabs = byId("link-tabs");
  if (!linkTabs || core.links.length === 0) return;
  const plot = byId("link-graph");
  const { columns, rows, targets, ends } = core.tables.links;
  let current = 0;
  let opened = null;

  // The whole curve of the open link, which its points for the pointer are part of.
  function highlighted(spec) {
    const points = spec.data.find((trace) => trace.customdata?.includes(opened));
    if (!opened || !points) return spec;
    const place = points.customdata.indexOf(opened);
    const [px, py] = [points.x[place], points.y[place]];
    for (const { mode, x, y, legendgroup } of spec.data) {
      if (mode !== "lines" || legendgroup !== points.legendgroup) continue;
      const here = x.findIndex((value, index) => value === px && y[index] === py);
      if (here < 0) continue;
      const start = x.lastIndexOf(null, here) + 1;
      const end = x.indexOf(null, here);
      const [xs, ys] = [x, y].map((side) => side.slice(start, end < 0 ? undefined : end));
      const line = { type: "scatter", mode: "lines", x: xs, y: ys, hoverinfo: "skip", showlegend: false, name: "opened" };
      return { ...spec, data: [{ ...line, line: { width: 9, color: "$ink" } }, ...spec.data, { ...line, line: { width: 2, color: "$paper", dash: "dot" } }] };
    }
    return spec;
  }
  const graphRows = (graph) => () => [
    columns.map((column) => column.title),
    ...rows.filter((row, index) => graph.spec.data.some((trace) => trace.customdata?.includes(targets[index])))
      .map((row) => row.map((cell) => cell[0])),
  ];
  function fill() {
    const graph = core.links[current];
    // Wider than a narrow window: its frame scrolls, so that heads stay apart.
    Object.assign(plot.style, { minWidth: `${graph.width}px`, height: graph.spec.data.length ? `${graph.height}px` : "" });
    byId("link-remark").textContent = graph.remark;
    show(plot, { spec: highlighted(graph.spec), alt: graph.alt, empty: "No link is beyond chance by this measure.", rows: graphRows(graph) });
  }
  const choose = tabs(linkTabs, "link", core.links.map((graph) => graph.title), (index) => {
    current = index;
    fill();
  });
  choose(0);

  openers.link = (what) => {
    const index = targets.indexOf(`link/${what}`);
    if (index < 0) return null;
    opened = targets[index];
    const has = (graph) => graph.spec.data.some((trace) => trace.customdata?.includes(opened));
    const drawn = has(core.links[current]) ? current : core.links.findIndex(has);
    choose(drawn < 0 ? current : drawn);
    const row = rows[index];
    byId("link-title").textContent = `${row[0][1]} → ${row[1][1]}`;
    byId("link-numbers").replaceChildren(...columns.flatMap((column, c) => (c < 2 ? [] : [
      make("div", {}, make("dt", { textContent: column.name, title: column.hint }), make("dd", { textContent: row[c][1] })),
    ])));
    byId("link-heads").replaceChildren(...[["The head that writes", 0], ["The head that reads", 1]].map(([text, side]) =>
      opener(text, ends[index][side])));
    byId("link-panel").hidden = false;
    return { target: opened, mark: byId("links"), heading: byId("link-title"), said: `Link ${byId("link-title").textContent}.` };
  };
}

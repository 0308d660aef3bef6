// Figures: colours filled in from the theme, drawn when they come into view or the browser is idle.
let palettes = {};
function painted(value) {
  if (typeof value === "string") return value[0] === "$" ? palettes[theme()][value.slice(1)] ?? value : value;
  if (Array.isArray(value)) return typeof value.at(-1) === "number" ? value : value.map(painted);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, painted(item)]));
  }
  return value;
}

let plotly = null;
function loadPlotly() {
  plotly ??= inflate("data-plotly").then((source) => {
    document.head.append(make("script", { textContent: source }));
    return window.Plotly;
  });
  return plotly;
}

const MARGIN = 300; // pixels from the window at which a figure is drawn
const plots = new Map(); // element -> {spec, alt, empty, rows, visible, drawn, waiting, busy, width}
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const plot = plots.get(entry.target);
    plot.visible = entry.isIntersecting;
    if (plot.visible && plot.waiting) draw(entry.target);
  }
}, { rootMargin: `${MARGIN}px` });
const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const plot = plots.get(target);
    if (!plot.drawn || plot.busy || !target.offsetWidth || target.offsetWidth === plot.width) continue;
    plot.width = target.offsetWidth;
    window.Plotly.Plots.resize(target);
  }
});

// `rows` gives the rows of the figure's CSV, heading first, where the traces do not say it well.
function show(element, { spec, alt, empty = "No value here.", rows = null }) {
  if (!plots.has(element)) {
    // Measured once here, since the observer's first report waits for a frame.
    const { top, bottom } = element.getBoundingClientRect();
    const visible = top < innerHeight + MARGIN && bottom > -MARGIN;
    plots.set(element, { visible, waiting: false, drawn: false });
    observer.observe(element);
    resized.observe(element);
    themed.push(() => refresh(element));
    addSave(element.closest("figure"), () => plots.get(element));
  }
  Object.assign(plots.get(element), { spec, alt, empty, rows });
  element.setAttribute("aria-label", alt);
  refresh(element);
}

function refresh(element) {
  const plot = plots.get(element);
  plot.waiting = true;
  if (plot.visible) draw(element);
  else drawWhenIdle();
}

// Figures out of view are drawn too, one by one: a page may be printed or saved at any time.
let idle = false;
function drawWhenIdle() {
  if (idle) return;
  idle = true;
  const soon = window.requestIdleCallback ?? setTimeout;
  soon(async () => {
    const next = [...plots].find(([element, plot]) => plot.waiting && !plot.busy && element.offsetWidth);
    if (next) await draw(next[0]);
    idle = false;
    if (next) drawWhenIdle();
  }, { timeout: 300 });
}

// Plotly must not be asked twice at once for one element: draws take turns, and of several
// that wait only the last is done.
async function draw(element) {
  const plot = plots.get(element);
  if (plot.busy) return;
  plot.busy = true;
  try {
    const Plotly = await loadPlotly();
    while (plot.waiting && element.offsetWidth) await paint(Plotly, element, plot);
  } finally {
    plot.busy = false;
  }
}

async function paint(Plotly, element, plot) {
  plot.waiting = false;
  const none = !plot.spec || plot.spec.data.length === 0;
  const first = !plot.drawn;
  if (none && plot.drawn) Plotly.purge(element);
  if (none) element.textContent = plot.empty;
  else if (first) element.textContent = "";
  element.classList.toggle("none", none);
  plot.drawn = !none;
  plot.width = element.offsetWidth;
  document.documentElement.dataset.figures = [...plots.values()].filter((p) => p.drawn).length;
  if (none) return;
  const { data, layout } = painted(plot.spec);
  const done = Plotly.react(element, data, layout, { displayModeBar: false });
  if (first) listen(element);
  await done;
}

// What a point or a cell opens: its pair, its heads or its link.
function targetOf({ data, customdata, x, y }) {
  if (data.type === "heatmap") return data.meta ? `${data.meta}/${y}-${x}` : null;
  return typeof customdata === "string" ? customdata : null;
}

function listen(element) {
  element.on("plotly_click", ({ points }) => {
    const target = targetOf(points[0]);
    if (target) go(target);
  });
  element.on("plotly_hover", ({ points }) => element.classList.toggle("opens", Boolean(targetOf(points[0]))));
  element.on("plotly_unhover", () => element.classList.remove("opens"));
}

// A ring around the points of one object, in a copy of a figure.
function ringed(spec, target) {
  const trace = spec.data.find((one) => one.text && one.visible !== "legendonly" && one.customdata?.includes(target));
  if (!trace) return spec;
  const places = trace.customdata.flatMap((one, index) => (one === target ? [index] : []));
  const ring = {
    type: "scatter", mode: "markers", name: "opened", hoverinfo: "skip", showlegend: false,
    x: places.map((index) => trace.x[index]), y: places.map((index) => trace.y[index]),
    marker: { symbol: "circle-open", size: 15, color: "$ink", line: { width: 2.5 } },
  };
  return { ...spec, data: [...spec.data, ring] };
}

// How a trace looks in the key, by its name. What no chart draws is not in the key.
const KEYS = [
  ["k-line", "median", "median of a layer"], ["k-line", "value", "value"],
  ["k-point", "each pair", "each pair"], ["k-point", "lowest and highest pair", "lowest and highest pair"],
  ["k-spread", "middle half of the pairs", "middle half of the pairs"],
  ["k-balanced", "balanced", "balanced"], ["k-balanced", "median, balanced", "median, balanced"],
  ["k-band", "95 % of chance values", "95 % of chance values"],
  ["k-chance", "chance", "chance"], ["k-chance", "balanced pair", "a balanced pair"],
  ["k-jump", "jump", "jump out of its course"],
  ["k-ring", "opened", "the pair that is open below"],
];
function fillKey(key, specs) {
  const drawn = new Set(specs.flatMap((spec) => spec.data.map((trace) => trace.name)));
  key.replaceChildren(...KEYS.filter(([, name]) => drawn.has(name))
    .map(([look, , words]) => make("li", {}, make("i", { className: look }), words)));
}

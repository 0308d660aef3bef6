// Figures: colours filled in from the theme, drawn when they come into view.
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
const plots = new Map(); // element -> {spec, visible, drawn, waiting}
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const plot = plots.get(entry.target);
    plot.visible = entry.isIntersecting;
    if (plot.visible && plot.waiting) draw(entry.target);
  }
}, { rootMargin: `${MARGIN}px` });

function show(element, spec, alt, empty = "No value here.") {
  if (!plots.has(element)) {
    // Measured once here, since the observer's first report waits for a frame.
    const { top, bottom } = element.getBoundingClientRect();
    const visible = top < innerHeight + MARGIN && bottom > -MARGIN;
    plots.set(element, { visible, waiting: false, drawn: false });
    observer.observe(element);
    themed.push(() => refresh(element));
  }
  Object.assign(plots.get(element), { spec, empty });
  if (alt) element.setAttribute("aria-label", alt);
  refresh(element);
}

function refresh(element) {
  const plot = plots.get(element);
  plot.waiting = true;
  if (plot.visible) draw(element);
}

// Plotly must not be asked twice at once for one element: draws take turns, and of several
// that wait only the last is done.
async function draw(element) {
  const plot = plots.get(element);
  if (plot.busy) return;
  plot.busy = true;
  try {
    const Plotly = await loadPlotly();
    while (plot.waiting) {
      plot.waiting = false;
      await paint(Plotly, element, plot);
    }
  } finally {
    plot.busy = false;
  }
}

async function paint(Plotly, element, plot) {
  const none = !plot.spec || plot.spec.data.length === 0;
  if (none && plot.drawn) Plotly.purge(element);
  if (none) element.textContent = plot.empty;
  else if (!plot.drawn) element.textContent = "";
  element.classList.toggle("none", none);
  plot.drawn = !none;
  if (!none) {
    const { data, layout } = painted(plot.spec);
    await Plotly.react(element, data, layout, { responsive: true, displayModeBar: false });
  }
  document.documentElement.dataset.figures = [...plots.values()].filter((p) => p.drawn).length;
}

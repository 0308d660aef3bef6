// Figures over the steps: their x are places in the series, put where the chosen axis has them.
let axes = [];
let axis = null;
let steps = [];
const overSteps = new Map(); // element -> figure, as from `spec`, with places for x

// Where a place stands; halves lie between two steps, or as far outside as the nearest lies inside.
function onAxis(place) {
  const last = axis.x.length - 1;
  const low = Math.min(Math.max(Math.floor(place), 0), Math.max(last - 1, 0));
  const gap = last > 0 ? axis.x[low + 1] - axis.x[low] : 1;
  return axis.x[low] + (place - low) * gap;
}

function placed(spec, current) {
  const { layout } = spec;
  const ticks = axis.tickvals ? { tickvals: axis.tickvals, ticktext: axis.ticktext } : { nticks: 6, tickformat: ",d" };
  const title = { ...layout.xaxis.title, text: axis.title };
  const shapes = current === null ? [] : [{ type: "line", yref: "paper", y0: 0, y1: 1, x0: onAxis(current), x1: onAxis(current), layer: "below", line: { color: "$axis", width: 1.5 } }];
  return {
    data: spec.data.map((trace) => ({ ...trace, x: trace.x.map(onAxis) })),
    layout: { ...layout, xaxis: { ...layout.xaxis, ...ticks, title }, shapes },
  };
}

// All of them, again when the axis, the step or a figure changes.
function showOverSteps(current) {
  for (const [element, figure] of overSteps) {
    show(element, { ...figure, spec: figure.spec.data.length ? placed(figure.spec, current) : figure.spec });
  }
}

function setUpAxis(redraw) {
  const select = byId("axis-select");
  [axis] = axes;
  if (!select) return;
  select.append(...axes.map((one) => make("option", { value: one.key, textContent: one.choice })));
  select.addEventListener("change", () => {
    axis = axes.find((one) => one.key === select.value);
    for (const words of document.querySelectorAll("[data-axis-words]")) words.textContent = axis.words;
    redraw();
  });
}

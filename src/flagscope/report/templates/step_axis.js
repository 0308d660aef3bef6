// Figures over the steps: their x are places in the run, put where the chosen axis has them.
let runs = [];
let run = null;
let everyStep = []; // of all runs; `steps` are those of the run that is open
let axes = [];
let axis = null;
let steps = [];
const overSteps = new Map(); // element -> figure, as from `spec`, with places for x on its own axes or those of the run

// Where a place stands; halves lie between two steps, or as far outside as the nearest lies inside.
function onAxis(place, axis) {
  const last = axis.x.length - 1;
  const low = Math.min(Math.max(Math.floor(place), 0), Math.max(last - 1, 0));
  const gap = last > 0 ? axis.x[low + 1] - axis.x[low] : 1;
  return axis.x[low] + (place - low) * gap;
}

function placed({ spec, axes: own, current: place }, step) {
  const { layout } = spec;
  const chosen = own ? own.find((one) => one.key === axis.key) ?? own[0] : axis;
  return placedOn(chosen, spec, layout, place ? place() : step);
}

function placedOn(axis, spec, layout, current) {
  const ticks = axis.tickvals ? { tickvals: axis.tickvals, ticktext: axis.ticktext } : { nticks: 6, tickformat: ",d" };
  const title = { ...layout.xaxis.title, text: axis.title };
  const shapes = current === null ? [] : [{ type: "line", yref: "paper", y0: 0, y1: 1, x0: onAxis(current, axis), x1: onAxis(current, axis), layer: "below", line: { color: "$axis", width: 1.5 } }];
  return {
    data: spec.data.map((trace) => ({ ...trace, x: trace.x.map((place) => onAxis(place, axis)) })),
    layout: { ...layout, xaxis: { ...layout.xaxis, ...ticks, title }, shapes },
  };
}

// All of them, again when the axis, the step or a figure changes.
function showOverSteps(current) {
  for (const [element, figure] of overSteps) {
    show(element, { ...figure, spec: figure.spec.data.length ? placed(figure, current) : figure.spec });
  }
}

function sayAxis() {
  for (const words of document.querySelectorAll("[data-axis-words]")) words.textContent = axis.words;
}

// A run is open: its steps, its axes, its figures. The kind of axis stays where the run has it.
function useRun(index) {
  run = runs[index];
  steps = run.places.map((place) => everyStep[place]);
  axes = run.axes;
  axis = axes.find((one) => one.key === axis?.key) ?? axes[0];
  byId("axis-select")?.replaceChildren(...axes.map((one) => make("option", { value: one.key, textContent: one.choice, selected: one === axis })));
  sayAxis();
  for (const words of document.querySelectorAll("[data-run-name]")) words.textContent = runs.length > 1 ? `: ${run.name}` : "";
  for (const select of document.querySelectorAll("[data-run-select]")) select.value = String(index);
  for (const element of document.querySelectorAll("[data-over-steps]")) {
    const figure = run.figures[element.dataset.overSteps];
    overSteps.set(element.querySelector(".plot"), { ...figure, rows: () => figure.rows });
  }
}

function setUpRuns(opened) {
  for (const select of document.querySelectorAll("[data-run-select]")) {
    select.addEventListener("change", () => opened(Number(select.value)));
  }
}

function setUpAxis(redraw) {
  byId("axis-select")?.addEventListener("change", (event) => {
    axis = axes.find((one) => one.key === event.target.value);
    sayAxis();
    redraw();
  });
}

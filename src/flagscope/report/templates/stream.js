// The residual stream: who reads what each kind of map writes.
function setUpStream(core) {
  const writerTabs = byId("writer-tabs");
  if (!writerTabs || core.writers.length === 0) return;
  const figures = [...document.querySelectorAll("[data-streamed]")];
  const key = byId("writer-key");
  const dashes = { solid: "solid", dot: "dotted" };
  let samples = []; // [element, trace] of the key in view
  const paintKey = () => samples.forEach(([sample, { line }]) => { sample.style.borderTop = `3px ${dashes[line.dash] ?? "dashed"} ${painted(line.color)}`; });
  onTheme(paintKey);
  let redraw = () => {};
  gaugeListeners.push(() => redraw());
  const choose = (index) => {
    const { charts } = core.writers[index];
    const hidden = new Set();
    const draw = () => figures.forEach((figure) => {
      const { spec, alt, label } = charts[figure.dataset.streamed];
      figure.hidden = label === "gauge" && !gaugeShown() && Object.values(charts).some((chart) => chart.label !== "gauge");
      fillChip(figure.querySelector("[data-label]"), label);
      const data = spec.data.map((trace) => (trace.text ? { ...trace, visible: !hidden.has(trace.name) } : trace));
      show(figure.querySelector(".plot"), { spec: { ...spec, data }, alt });
    });
    fillKey(byId("writer-chance"), Object.values(charts).map(({ spec }) => ({ data: spec.data.filter((trace) => !trace.text) })));
    // One key for all charts; lines that would not be told apart start hidden.
    const lines = new Map(Object.values(charts).flatMap(({ spec }) => spec.data).filter((trace) => trace.text).map((trace) => [trace.name, trace]));
    samples = [];
    key.replaceChildren(...[...lines].map(([name, trace]) => {
      if (trace.visible === "legendonly") hidden.add(name);
      const sample = make("i");
      samples.push([sample, trace]);
      const button = make("button", { type: "button", "aria-pressed": String(!hidden.has(name)) }, sample, name);
      button.addEventListener("click", () => {
        if (!hidden.delete(name)) hidden.add(name);
        button.setAttribute("aria-pressed", String(!hidden.has(name)));
        draw();
      });
      return button;
    }));
    paintKey();
    redraw = draw;
    draw();
  };
  tabs(writerTabs, "writer", core.writers.map((writer) => writer.title), choose)(0);
}

// Curves of one pair: each number over the steps, with what chance gives.
const shortNumber = (value) => String(Number(value.toPrecision(3))).replace("-", "−");

function chanceWords(low, high) {
  if (low === null || high === null) return "";
  return low === high ? `chance ${shortNumber(low)}` : `chance ${shortNumber(low)} to ${shortNumber(high)}`;
}

// The range of chance, once for each run of steps that have one: no band spans a gap.
function chanceTraces(low, high) {
  const traces = [];
  let run = [];
  const close = () => {
    if (run.length) {
      const x = run.length > 1 ? run : [run[0] - 0.3, run[0] + 0.3];
      const at = (ends) => x.map((place) => ends[Math.round(place)]);
      const exact = run.every((place) => low[place] === high[place]);
      traces.push(exact
        ? { type: "scatter", mode: "lines", x, y: at(low), line: { color: "$chance", width: 1.3, dash: "dot" }, hoverinfo: "skip", name: "chance" }
        : { type: "scatter", mode: "lines", x: [...x, ...x.toReversed()], y: [...at(low), ...at(high).toReversed()], fill: "toself", fillcolor: "$band", line: { width: 0, color: "$band" }, hoverinfo: "skip", name: "95 % of chance values" });
    }
    run = [];
  };
  steps.forEach((_, place) => {
    if (low[place] === null || high[place] === null) close();
    else run.push(place);
  });
  close();
  return traces;
}

// Where the curve leaves its course, between two neighbouring steps.
function jumpTraces(number, pair, values) {
  const jumps = run.jumps[pair.name]?.[number.field] ?? [];
  const place = (name) => steps.findIndex((step) => step.name === name);
  return jumps.map(([after, by]) => [place(after), place(by)]).filter((ends) => !ends.includes(-1)).map((x) => ({
    type: "scatter", mode: "lines", name: "jump", x, y: x.map((one) => values[one]), line: { color: "$strong", width: 6 }, opacity: 0.6, hoverinfo: "skip",
  }));
}

function curveFigure(number, pair, targetOfStep) {
  const drawn = number.curves[pair.index];
  const alt = `${number.title} of ${pair.name}${runs.length > 1 ? ` in ${run.name}` : ""} over the steps`;
  const known = drawn?.[0].some((value) => value !== null);
  if (!known) return { spec: { data: [], layout: {} }, alt, empty: "This pair has no such number at any step." };
  const [values, low, high] = drawn;
  const text = values.map((value, place) => [steps[place].hover, value === null ? "" : `${number.symbol} = ${shortNumber(value)}`, chanceWords(low[place], high[place])].filter(Boolean).join("<br>"));
  const value = {
    type: "scatter", mode: "lines+markers", name: "value", x: values.map((_, place) => place), y: values, text,
    hovertemplate: "%{text}<extra></extra>", customdata: values.map((_, place) => targetOfStep(place)),
    line: { color: "$raw", width: 2 }, marker: { color: "$raw", size: values.length > 24 ? 4 : 6 },
  };
  const data = [...chanceTraces(low, high), ...jumpTraces(number, pair, values), value];
  const largest = Math.max(...values.filter((one) => one !== null));
  const yaxis = { ...number.layout.yaxis };
  if (number.log_above !== null && largest > number.log_above) Object.assign(yaxis, { type: "log", dtick: "D2", tickformat: "~g" });
  if (number.counts) yaxis.dtick = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((size) => largest / size <= 5) ?? 1000;
  const rows = () => [["step", "number", number.title, "chance, from", "to"], ...steps.map((step, place) => [step.name, step.number, values[place], low[place], high[place]])];
  return { spec: { data, layout: { ...number.layout, yaxis } }, alt, rows };
}

// Which steps have no number, in words.
function missingWords(number, pair) {
  const values = number.curves[pair.index]?.[0] ?? [];
  const missing = steps.filter((_, place) => values[place] === null || values[place] === undefined);
  if (!missing.length || missing.length === steps.length) return "";
  const some = missing.slice(0, 3).map((step) => step.label).join(", ");
  return `No number at ${some}${missing.length > 3 ? ` and ${missing.length - 3} more` : ""}.`;
}

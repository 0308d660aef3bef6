// The page of a series: a step, a number and a pair are open; #pair/NAME/NUMBER/STEP comes back.
function stepHint(place) {
  const { label, name, number, faults, measured, status } = steps[place];
  const which = number === null ? label : `${label}, ${name}`;
  const said = faults.length ? `faults: ${faults.join(", ")}` : "no fault found";
  const gap = measured ? "" : `; not measured${status === "ok" ? "" : `: ${status}`}`;
  return `${which}; ${place + 1} of ${steps.length}; ${said}${gap}`;
}

function drawMarks() {
  const last = Math.max(steps.length - 1, 1);
  const marks = steps.map(({ faults }, place) => make("i", { className: faults.length ? "fault" : "", style: `--at:${place / last}` }));
  const ends = [...new Set([0, steps.length - 1])].map((place) => make("span", { style: `--at:${place / last}`, textContent: steps[place].label }));
  byId("step-marks").replaceChildren(...marks, ...ends);
  byId("step").max = String(steps.length - 1);
}

const PARTS = {
  pairs: { group: "Numbers of pairs", row: "pair" },
  heads: { group: "Numbers of heads", row: "heads" },
  health: { group: "Counts of health", row: "block" },
};

function setUpSeries(data) {
  const { pairs, numbers } = data;
  const slider = byId("step");
  const named = new Map(pairs.map((pair, index) => [pair.name, { ...pair, index }]));
  const all = [...named.values()];
  for (const what of numbers) what.all = what.curves;
  let step = Math.max(steps.findLastIndex((one) => one.measured), 0);
  let number = numbers[Math.max(numbers.findIndex((one) => one.field === data.first), 0)];
  let pair = all[0];
  const targetOf = (which = pair, place = step, what = number) => `pair/${which.name}/${what.field}/${steps[place].key}`;
  // A pair has the numbers of pairs, and what health counts in its block; heads have those of heads.
  const has = (what, one) => what.part === one.part || Boolean(what.all[one.index]);
  const numberOf = (one) => (has(number, one) ? number : numbers.find((what) => has(what, one)));
  number = numberOf(pair);

  function cellAt(what, index, place) {
    const drawn = index === null ? null : what.curves[index];
    const value = drawn ? drawn[0][place] : null;
    if (value === null) return null;
    const [low, high] = [drawn[1][place], drawn[2][place]];
    const within = low !== null && high !== null && low <= value && value <= high;
    const chance = chanceWords(low, high);
    const words = `${all[index].name}: ${what.symbol} = ${shortNumber(value)}${chance ? `, ${chance}${within ? "" : " (outside)"}` : ""}`;
    return { cell: [value, words, targetOf(all[index], place, what)], within, short: `${all[index].name}: ${shortNumber(value)}` };
  }
  const drawn = numbers.filter((what) => data.maps[what.part].cells.flat().some((index) => index !== null && what.all[index]));
  const maps = drawn.map((what) => {
    const of = data.maps[what.part];
    const label = new Set(what.labels.filter((_, index) => what.curves[index]));
    const rows = of.cells.map((row) => what.labels[row.find((index) => index !== null && what.curves[index])] ?? "");
    return {
      what, of, group: PARTS[what.part].group, scale: what.scale, limit: what.limit, row_title: PARTS[what.part].row, column_title: of.column_title,
      rows: of.rows, columns: of.columns, cells: [],
      label: (label.size === 1 && [...label][0]) || "", row_labels: label.size === 1 ? [] : rows, title: what.title,
      words: [what.words, what.calibrated ? "Dotted: within what chance gives 95 % of the time." : what.part === "health" ? "" : "No random model says what chance gives."].filter(Boolean).join(" "),
      furthest: what.calibrated ? "Furthest from chance" : "Largest",
    };
  });
  function prepare(map) {
    const cells = map.of.cells.map((row) => row.map((index) => cellAt(map.what, index, step)));
    map.cells = cells.map((row) => row.map((one) => one && one.cell));
    map.within = cells.map((row) => row.map((one) => Boolean(one?.within)));
    map.shorts = cells.map((row) => row.map((one) => one?.short));
    map.fileTitle = `${map.what.title} at ${steps[step].label}${runs.length > 1 ? ` of ${run.name}` : ""}`;
  }
  const map = setUpMap({ maps }, { prepare, chosen: (index) => {
    number = drawn[index];
    pair = has(number, pair) ? pair : all[data.maps[number.part].cells.flat().find((one) => one !== null && number.all[one])];
    keep();
    drawCurves();
    showOverSteps(step);
  } });

  const select = byId("pair-select");
  const groups = new Map();
  for (const one of all) {
    if (!groups.has(one.kind)) groups.set(one.kind, make("optgroup", { label: one.kind }));
    groups.get(one.kind).append(make("option", { value: String(one.index), textContent: one.name }));
  }
  select.append(...groups.values());
  const inOrder = [...select.options].map((option) => Number(option.value));
  const toPair = (index) => go(targetOf(all[index], step, numberOf(all[index])), { scroll: false });
  select.addEventListener("change", () => toPair(Number(select.value)));
  for (const [id, by] of [["pair-previous", -1], ["pair-next", 1]]) {
    byId(id).addEventListener("click", () => toPair(inOrder[select.selectedIndex + by]));
  }

  // What a run has of every curve.
  function sliceRun() {
    if (runs.length < 2) return;
    for (const what of numbers) what.curves = what.all.map((curve) => curve && curve.map((side) => run.places.map((place) => side[place])));
  }
  function openRun(index) {
    const here = steps[step].number;
    useRun(index);
    sliceRun();
    const same = steps.findIndex((one) => one.number === here);
    step = same >= 0 ? same : steps.length - 1;
    drawMarks();
  }
  // A step of any run; the run that has it is opened.
  function openStep(key) {
    const place = everyStep.findIndex((one) => one.key === key);
    if (place < 0) return false;
    const index = runs.findIndex((one) => one.places.includes(place));
    if (runs[index] !== run) openRun(index);
    step = run.places.indexOf(place);
    return true;
  }
  function drawBands() {
    if (!data.bands) return;
    document.querySelector("[data-pair-name]").textContent = pair.name;
    numbers.forEach((what, index) => {
      const holder = document.querySelector(`[data-band="${index}"]`);
      holder.hidden = !has(what, pair);
      const figure = bandFigure(data.bands, what, pair);
      fillChip(holder.querySelector("[data-label]"), what.labels[pair.index]);
      overSteps.set(holder.querySelector(".plot"), { ...figure, current: () => run.numbered?.[step] ?? null });
    });
  }

  function drawCurves() {
    byId("pair-title").textContent = pair.name;
    select.value = String(pair.index);
    byId("pair-previous").disabled = select.selectedIndex === 0;
    byId("pair-next").disabled = select.selectedIndex === inOrder.length - 1;
    const specs = numbers.map((what, index) => {
      const holder = document.querySelector(`[data-number="${index}"]`);
      const figure = curveFigure(what, pair, (place) => targetOf(pair, place, what));
      holder.hidden = !has(what, pair);
      holder.classList.toggle("chosen", what === number);
      fillChip(holder.querySelector("[data-label]"), what.labels[pair.index]);
      holder.querySelector("[data-missing]").textContent = missingWords(what, pair);
      overSteps.set(holder.querySelector(".plot"), figure);
      return figure.spec;
    });
    fillKey(byId("curves-key"), specs);
    byId("pair-onsets").replaceChildren(...(run.onsets[pair.name] ?? []).map((words) => make("li", { textContent: words })));
    drawBands();
    openNow.pair = targetOf();
    markMap();
  }
  function drawStep() {
    slider.value = String(step);
    slider.setAttribute("aria-valuetext", stepHint(step));
    byId("step-name").textContent = steps[step].label;
    const faults = steps[step].faults;
    byId("step-words").replaceChildren(faults.length ? make("b", { textContent: `Faults: ${faults.join(", ")}. ` }) : "No fault was found in this step. ",
      steps[step].measured ? "" : "It was not measured: the map has no numbers.");
    map.fill(drawn.includes(number) ? drawn.indexOf(number) : 0);
  }
  function drawAll() {
    drawStep();
    drawCurves();
    showOverSteps(step);
  }
  // The address follows a choice without a new entry of the history for each step of a slider.
  function keep() {
    try { history.replaceState(history.state, "", hashOf(targetOf())); } catch { /* inside another page */ }
  }
  slider.addEventListener("input", () => { step = Number(slider.value); drawAll(); });
  slider.addEventListener("change", keep);

  openers.pair = (rest) => {
    const parts = rest.split("/");
    const key = parts.pop();
    const field = parts.pop();
    const what = numbers.find((one) => one.field === field);
    const which = named.get(parts.join("/"));
    if (!what || !which || !openStep(key)) return null;
    [number, pair] = [what, which];
    number = numberOf(pair);
    drawAll();
    return { target: targetOf(), mark: byId("curves-card"), heading: byId("pair-title"), said: `${pair.name}, ${number.title}, ${steps[step].label}.` };
  };
  openers.step = (key) => {
    if (!openStep(key)) return null;
    drawAll();
    return { target: `step/${key}`, mark: byId("step-card"), heading: byId("h-map"), said: `${stepHint(step)}.` };
  };
  sliceRun();
  drawMarks();
  setUpRuns((index) => { openRun(index); drawAll(); keep(); });
  setUpAxis(() => showOverSteps(step));
  drawAll();
}

async function start() {
  setUpTables();
  model = document.querySelector("h1").dataset.model;
  const data = await inflateJson("data-series");
  palettes = data.palettes;
  runs = data.runs;
  everyStep = data.steps;
  if (runs.length) useRun(0);
  for (const element of document.querySelectorAll("[data-figure]")) {
    const figure = data.figures[element.dataset.figure];
    show(element.querySelector(".plot"), { ...figure, rows: () => figure.rows });
  }
  if (data.pairs.length) setUpSeries(data);
  else {
    setUpRuns((index) => { useRun(index); showOverSteps(null); });
    showOverSteps(null);
  }
  setUpPrint();
  setUpRoutes();
  document.documentElement.dataset.ready = "true";
}
start().catch((error) => complain(`The figures could not be drawn: ${error.message}`));

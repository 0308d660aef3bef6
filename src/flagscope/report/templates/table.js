// Tables: one line a row; sorted, filtered, with a choice of columns, a page at a time, saved as CSV.
const PAGE = 25;
// Columns in view at first; a table without a list shows all of its columns.
const SHOWN = { pairs: ["name", "kind", "layer", "ranks", "overlap_ratio", "commutator_ratio", "gram_correlation", "intersection_beyond_chance", "product", "p_adjusted", "status"] };

// A number as it is; what stands next to it in the table (ranks, z, chance, the balanced value, the
// label) in columns of its own. A p-value is sorted by its logarithm, and so is written as shown.
function tableCsv(columns, rows) {
  const plain = (text) => (text === "–" ? "" : text);
  const value = ([number, text], index) => (columns[index].key === "p_adjusted" ? plain(text) : number ?? plain(text));
  const parts = [
    ["", value, () => true],
    [", as shown", ([, text]) => plain(text), ([number, text], index) => value([number, text], index) !== text && text.includes(" ")],
    [", chance or more", (cell) => cell[2], (cell) => cell[2]],
    [", balanced", (cell) => cell[3], (cell) => cell[3]],
    [", label", (cell) => LABELS[cell[4]] ?? "", (cell) => cell[4]],
  ];
  const wanted = columns.flatMap((column, index) => parts
    .filter(([, , has]) => rows.some((row) => has(row[index], index)))
    .map(([name, get]) => [column.title + name, (row) => get(row[index], index)]));
  return csvText([wanted.map(([title]) => title), ...rows.map((row) => wanted.map(([, get]) => get(row)))]);
}

function setUpTable(holder, { columns, rows }, nameOf, targetOfRow) {
  const name = holder.dataset.table;
  const noun = holder.dataset.noun;
  const at = (key) => columns.findIndex((column) => column.key === key);
  const status = at("status");
  const ok = (row) => status < 0 || row[status][1] === "ok";
  const kind = Math.max(at("kind"), at("space"));
  const gaugeOnly = columns.map((_, index) => rows.some((row) => row[index][4] === "G") && !rows.some((row) => row[index][4] === "F"));
  const chosenColumns = columns.map((column) => (SHOWN[name] ? SHOWN[name].includes(column.key) : true));
  const state = { sort: null, direction: 1, page: 0, more: false };

  const search = make("input", { type: "search", placeholder: status < 0 ? "name, space …" : "name, layer, status …" });
  const select = make("select", {}, make("option", { value: "", textContent: "all" }),
    ...[...new Set(rows.map((row) => row[kind][1]))].map((text) => make("option", { value: text, textContent: text })));
  const bad = make("select", {}, make("option", { value: "", textContent: "all" }),
    make("option", { value: "ok", textContent: "ok" }), make("option", { value: "bad", textContent: "not ok" }));
  const more = make("input", { type: "checkbox" });
  const save = make("button", { type: "button", textContent: "Save CSV", "aria-label": `Save the table of ${noun}s as CSV` });
  const chooser = make("details", { className: "chooser" }, make("summary", { textContent: "Columns" }));
  holder.append(make("div", { className: "controls" }, make("label", {}, "Filter", search), make("label", {}, "Kind", select),
    status < 0 ? "" : make("label", {}, "Status", bad), chooser,
    make("label", { className: "check" }, more, "Chance and balanced values"), save));
  const head = make("tr");
  const body = make("tbody");
  const table = make("table", { className: "data" }, make("thead", {}, head), body);
  holder.append(make("div", { className: "scroll card", tabIndex: 0, role: "region", "aria-label": `Table: ${noun}s` }, table));
  const count = make("span", { role: "status" });
  const back = make("button", { type: "button", textContent: "Previous page" });
  const on = make("button", { type: "button", textContent: "Next page" });
  holder.append(make("div", { className: "pager" }, back, on, count));

  const shown = (index) => chosenColumns[index] && (gaugeShown() || !gaugeOnly[index]);
  const boxes = make("fieldset", {}, make("legend", { className: "away", textContent: "Columns shown" }));
  columns.forEach((column, index) => {
    const box = make("input", { type: "checkbox", checked: chosenColumns[index], disabled: index === 0 });
    box.addEventListener("change", () => { chosenColumns[index] = box.checked; fillHead(); fill(); });
    boxes.append(make("label", {}, box, column.name, gaugeOnly[index] ? make("span", { className: "sub", textContent: " gauge" }) : ""));
  });
  chooser.append(boxes);
  chooser.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    chooser.open = false;
    chooser.querySelector("summary").focus();
  });
  chooser.addEventListener("focusout", (event) => { if (event.relatedTarget && !chooser.contains(event.relatedTarget)) chooser.open = false; });

  function sortBy(index) {
    // The first click on a number shows the largest, on a text the first.
    const numeric = rows.some((row) => typeof row[index][0] === "number");
    state.direction = state.sort === index ? -state.direction : numeric && columns[index].key !== "layer" ? -1 : 1;
    Object.assign(state, { sort: index, page: 0 });
    fill();
  }
  function fillHead() {
    head.replaceChildren(...columns.flatMap((column, index) => {
      if (!shown(index)) return [];
      const button = make("button", { type: "button", textContent: column.title, title: column.hint });
      button.addEventListener("click", () => sortBy(index));
      const th = make("th", { scope: "col" }, button);
      th.dataset.column = index;
      return [th];
    }));
  }

  const haystack = rows.map((row) => row.map((cell) => `${cell[1]} ${cell[2]}`).join(" ").toLowerCase());
  function cell(value, column, index) {
    const [, text, chance, balanced, label] = value;
    const below = [
      chance && [label ? `chance ${chance}` : chance, "sub"],
      balanced && columns[column].key !== "freedom" && [`balanced ${balanced}`, "sub balanced-ink"],
    ].filter(Boolean);
    const lines = state.more ? below.map(([words, className]) => make("div", { className, textContent: words })) : [];
    const title = below.map(([words]) => words).join("\n");
    if (column === 0) {
      const link = opener(text, targetOfRow(index), { "aria-label": `Open ${nameOf(index)}` });
      return make("th", { scope: "row" }, link, ok(rows[index]) ? "" : make("span", { className: "sub bad", textContent: ` ${rows[index][status][1]}` }), ...lines);
    }
    const element = make("td", {}, text, label ? " " : "", mark(label), ...lines);
    if (title && !state.more) element.title = title;
    if (column === status && text !== "ok") element.className = "bad";
    return element;
  }
  function kept() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const some = [...rows.keys()].filter((index) =>
      words.every((word) => haystack[index].includes(word))
      && (!select.value || rows[index][kind][1] === select.value)
      && (!bad.value || ok(rows[index]) === (bad.value === "ok")));
    if (state.sort !== null) some.sort((a, b) => order(rows[a][state.sort][0], rows[b][state.sort][0], state.direction) || a - b);
    return some;
  }
  function fill() {
    const some = kept();
    const from = state.page * PAGE;
    const page = some.slice(from, from + PAGE);
    body.replaceChildren(...page.map((index) => make("tr", {}, ...rows[index].flatMap((value, column) => (shown(column) ? [cell(value, column, index)] : [])))));
    for (const th of head.children) {
      if (Number(th.dataset.column) === state.sort) th.setAttribute("aria-sort", state.direction > 0 ? "ascending" : "descending");
      else th.removeAttribute("aria-sort");
    }
    back.disabled = state.page === 0;
    on.disabled = from + PAGE >= some.length;
    const range = some.length ? `${from + 1}–${from + page.length} of ` : "";
    count.textContent = `${range}${some.length.toLocaleString("en")} ${noun}${some.length === 1 ? "" : "s"}`;
  }
  const again = () => { state.page = 0; fill(); };
  for (const control of [search, select, bad]) control.addEventListener("input", again);
  more.addEventListener("change", () => { state.more = more.checked; fill(); });
  save.addEventListener("click", () => download(fileName(`${noun}s`, "csv"), tableCsv(columns, kept().map((index) => rows[index])), "text/csv"));
  back.addEventListener("click", () => { state.page -= 1; fill(); });
  on.addEventListener("click", () => { state.page += 1; fill(); });
  gaugeListeners.push(() => { fillHead(); fill(); });
  fillHead();
  fill();
}

// Sortable, filterable tables, fifty rows at a time.
const PAGE = 50;
const mark = (label) => label
  ? make("b", { className: `mark ${label.toLowerCase()}`, textContent: label, title: label === "F" ? "functional" : "gauge" })
  : "";

function order(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null);
  const both = typeof a === "number" && typeof b === "number";
  return direction * (both ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
}

function setUpTable(holder, { columns, rows }, open) {
  const at = (key) => columns.findIndex((column) => column.key === key);
  const status = at("status");
  const ok = (row) => status < 0 || row[status][1] === "ok";
  const state = { sort: null, direction: 1, text: "", kind: "", page: 0 };
  const kindColumn = holder.dataset.table === "pairs" ? (row) => row[0][2] : (row) => row[at("space")][1];
  const kinds = [...new Set(rows.map(kindColumn))];
  const search = make("input", { type: "search", placeholder: status < 0 ? "name, space …" : "name, layer, status …" });
  const select = make("select", {}, make("option", { value: "", textContent: "all" }),
    ...kinds.map((kind) => make("option", { value: kind, textContent: kind })));
  const bad = make("select", {}, make("option", { value: "", textContent: "all" }),
    make("option", { value: "ok", textContent: "ok" }), make("option", { value: "bad", textContent: "not ok" }));
  holder.append(make("div", { className: "controls" }, make("label", {}, "Filter", search),
    make("label", {}, "Kind", select), status < 0 ? "" : make("label", {}, "Status", bad)));
  const head = make("tr");
  const body = make("tbody");
  const table = make("table", { className: "data" }, make("thead", {}, head), body);
  holder.append(make("div", { className: "scroll card", tabIndex: 0, role: "region", "aria-label": `Table: ${holder.dataset.noun}s` }, table));
  const count = make("span", { role: "status" });
  const back = make("button", { type: "button", textContent: "Back" });
  const on = make("button", { type: "button", textContent: "More" });
  holder.append(make("div", { className: "pager" }, back, on, count));

  columns.forEach((column, index) => {
    const button = make("button", { type: "button", textContent: column.title, title: column.hint });
    button.addEventListener("click", () => {
      // The first click on a number shows the largest, on a text the first.
      const numeric = rows.some((row) => typeof row[index][0] === "number");
      state.direction = state.sort === index ? -state.direction : numeric && column.key !== "layer" ? -1 : 1;
      Object.assign(state, { sort: index, page: 0 });
      fill();
    });
    head.append(make("th", { scope: "col" }, button));
  });

  const haystack = rows.map((row) => row.map((cell) => `${cell[1]} ${cell[2]}`).join(" ").toLowerCase());
  function cell(value, column, index) {
    const [, text, chance, balanced, label] = value;
    if (column === 0 && open) {
      const button = make("button", { type: "button", textContent: text, title: `Open ${text}` });
      button.addEventListener("click", () => open(index));
      return make("th", { scope: "row" }, button, make("div", { className: "sub", textContent: chance }),
        ok(rows[index]) ? "" : make("div", { className: "sub bad", textContent: rows[index][status][1] }));
    }
    const element = make("td", {}, make("div", {}, text, " ", mark(label)));
    if (chance) element.append(make("div", { className: "sub", textContent: label ? `chance ${chance}` : chance }));
    if (balanced && columns[column].key !== "freedom") element.append(make("div", { className: "sub balanced-ink", textContent: `balanced ${balanced}` }));
    if (column === status && text !== "ok") element.className = "bad";
    return element;
  }
  function fill() {
    const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = [...rows.keys()].filter((index) =>
      words.every((word) => haystack[index].includes(word))
      && (!select.value || kindColumn(rows[index]) === select.value)
      && (!bad.value || ok(rows[index]) === (bad.value === "ok")));
    if (state.sort !== null) kept.sort((a, b) => order(rows[a][state.sort][0], rows[b][state.sort][0], state.direction) || a - b);
    const from = state.page * PAGE;
    const page = kept.slice(from, from + PAGE);
    body.replaceChildren(...page.map((index) => make("tr", {}, ...rows[index].map((value, column) => cell(value, column, index)))));
    [...head.children].forEach((th, index) => {
      if (index === state.sort) th.setAttribute("aria-sort", state.direction > 0 ? "ascending" : "descending");
      else th.removeAttribute("aria-sort");
    });
    back.disabled = state.page === 0;
    on.disabled = from + PAGE >= kept.length;
    const range = kept.length ? `${from + 1}–${from + page.length} of ` : "";
    count.textContent = `${range}${kept.length.toLocaleString("en")} ${holder.dataset.noun}${kept.length === 1 ? "" : "s"}`;
  }
  const again = () => { Object.assign(state, { page: 0, text: search.value }); fill(); };
  for (const control of [search, select, bad]) control.addEventListener("input", again);
  back.addEventListener("click", () => { state.page -= 1; fill(); });
  on.addEventListener("click", () => { state.page += 1; fill(); });
  fill();
}

// The map: a number of every head by layer and head, or of every kind of pair by layer.

// How far from chance a number lies, and on which side; of a count, how many.
const SHADES = { ratio: (value) => Math.log2(Math.max(value, 1e-9)), correlation: (value) => value, count: (value) => value };

function colourAt(scale, position) {
  const above = scale.findIndex(([at]) => at >= position);
  const [hi, low] = [scale[Math.max(above, 0)], scale[Math.max(above - 1, 0)]];
  const part = hi[0] === low[0] ? 0 : (position - low[0]) / (hi[0] - low[0]);
  const channel = (colour, i) => parseInt(colour.slice(1 + 2 * i, 3 + 2 * i), 16);
  return [0, 1, 2].map((i) => Math.round(channel(low[1], i) * (1 - part) + channel(hi[1], i) * part));
}

function mapColour(map, value) {
  const scale = Array.from({ length: 11 }, (_, index) => [index / 10, palettes[theme()][`d${index}`]]);
  const shade = SHADES[map.scale];
  return colourAt(scale, Math.min(1, Math.max(0, 0.5 + shade(value) / shade(map.limit) / 2)));
}

// Black or white, whichever stands out more.
function readableOn(colour) {
  const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

const SPACES = { q: "query", k: "key", v: "value", o: "output" };
const mapNumber = (value) => (Number.isInteger(value) ? value.toLocaleString("en") : String(value));

// As a figure of Plotly, for files.
function mapSpec(map) {
  const shade = SHADES[map.scale];
  const end = shade(map.limit);
  const colours = map.scale === "count" ? [5, 6, 7, 8, 9, 10] : [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
  const ticks = map.scale === "count" ? [0, end] : [-end, 0, end];
  const names = { ratio: [`1/${mapNumber(Number(map.limit.toPrecision(3)))}`, "chance", `${mapNumber(Number(map.limit.toPrecision(3)))} ×`] }[map.scale];
  const heat = {
    type: "heatmap", x: map.columns, y: map.rows,
    z: map.cells.map((row) => row.map((cell) => (cell ? shade(cell[0]) : null))),
    zmin: map.scale === "count" ? 0 : -end, zmax: end, xgap: 1, ygap: 1,
    colorscale: colours.map((colour, index) => [index / (colours.length - 1), `$d${colour}`]),
    colorbar: { thickness: 10, outlinewidth: 0, tickvals: ticks, ...(names ? { ticktext: names } : {}) },
  };
  const side = { type: "category", showgrid: false, automargin: true };
  return { data: [heat], layout: { font: { color: "$ink", family: "system-ui, sans-serif" }, plot_bgcolor: "$paper", xaxis: { ...side, title: { text: map.column_title } }, yaxis: { ...side, autorange: "reversed", title: { text: map.row_title } } } };
}

const mapRows = (map) => [
  [map.row_title, map.column_title, map.fileTitle ?? map.title, "what", "opens"],
  ...map.cells.flatMap((row, r) => row.flatMap((cell, c) => (cell ? [[map.rows[r], map.columns[c], ...cell]] : []))),
];

// `prepare` fills in a map's cells before it is shown, where they change; `chosen` hears of a choice.
function setUpMap(core, { prepare = () => {}, chosen = () => {} } = {}) {
  const table = byId("map-grid");
  if (!table || core.maps.length === 0) return null;
  const select = byId("map-choice");
  const readout = byId("map-readout");
  let map = null;
  const groups = new Map();
  core.maps.forEach((one, index) => {
    if (!groups.has(one.group)) groups.set(one.group, make("optgroup", { label: one.group }));
    const gauge = one.label === "gauge" ? " (gauge)" : "";
    groups.get(one.group).append(make("option", { value: String(index), textContent: one.title + gauge }));
  });
  select.append(...groups.values());

  const said = (r, c) => {
    const cell = map.cells[r][c];
    const place = map.row_title === "layer" ? `layer ${map.rows[r]}, ${map.column_title} ${map.columns[c]}` : `${map.rows[r]}, ${map.columns[c]}`;
    return `${place}: ${cell ? cell[1] : "no number"}`;
  };
  // As in the list: both heads by number, the value, the space.
  const short = (r, c) => {
    const [value, , target] = map.cells[r][c];
    if (map.shorts) return map.shorts[r][c];
    const [, , marks] = target.split("/");
    if (map.row_title !== "layer") return `${target.slice("pair/".length)}: ${mapNumber(value)}`;
    const space = SPACES[target.split("/")[1].at(-1)];
    return map.scale === "count" ? `layer ${map.rows[r]}, head ${map.columns[c]}: ${value}` : `layer ${map.rows[r]}, heads ${marks.replace("-", " and ")}: ${mapNumber(value)}, ${space}`;
  };
  const every = (count) => (count <= 32 ? 1 : count <= 80 ? 8 : 16);
  function fill() {
    map = core.maps[Number(select.value)];
    prepare(map);
    const heads = map.row_title === "layer";
    const [rows, columns] = [map.rows.length, map.columns.length];
    table.className = heads ? "map-heads" : "map-kinds";
    table.style.setProperty("--h", `${Math.max(5, Math.min(26, Math.floor(330 / rows)))}px`);
    table.style.setProperty("--w", `${Math.max(9, Math.min(38, Math.floor(680 / columns)))}px`);
    table.classList.toggle("dense", rows > 24 || columns > 32);
    const roomy = rows <= 18 && columns <= 18; // cells that have room for their number
    table.setAttribute("aria-label", `${map.title}. ${map.words}`);
    const head = make("tr", {}, make("td", { className: "corner", textContent: heads ? `${map.row_title} ╲ ${map.column_title}` : map.column_title }),
      ...map.columns.map((name, c) => make("th", { scope: "col" }, make("span", { textContent: c % every(columns) ? "" : name }))));
    const body = map.rows.map((name, r) => {
      const label = map.row_labels[r];
      const title = make("th", { scope: "row" }, make("span", { textContent: heads && r % every(rows) ? "" : name }), label ? mark(label[0].toUpperCase()) : "");
      return make("tr", {}, title, ...map.cells[r].map((cell, c) => {
        const element = make("td", { tabIndex: -1, role: "gridcell", "aria-label": said(r, c) });
        Object.assign(element.dataset, { r, c });
        if (cell) element.dataset.opens = cell[2];
        element.classList.toggle("within", Boolean(map.within?.[r][c]));
        if (cell && roomy) element.textContent = Number.isInteger(cell[0]) && map.scale === "count" ? cell[0] : cell[0].toFixed(Math.abs(cell[0]) < 9.995 ? 2 : 1).replace("-", "−");
        return element;
      }));
    });
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
    const first = table.querySelector("td[data-opens]") ?? table.querySelector("td[data-r]");
    first.tabIndex = 0;
    byId("map-words").textContent = map.words;
    fillChip(byId("map-label"), map.label);
    readout.textContent = readout.dataset.empty;
    paintMap();
    markMap();
    list();
  }
  function paintMap() {
    for (const cell of table.querySelectorAll("td[data-r]")) {
      const value = map.cells[cell.dataset.r][cell.dataset.c];
      const colour = value && mapColour(map, value[0]);
      cell.style.background = value ? `rgb(${colour.join(" ")})` : "";
      cell.style.color = value ? readableOn(colour) : "";
    }
    const limit = mapNumber(Number(map.limit.toPrecision(2)));
    const ends = { ratio: [`1/${limit}`, "1: chance", `${limit} × chance`], correlation: [`−${limit}`, "0: chance", limit], count: ["0", "", limit] }[map.scale];
    byId("map-key").replaceChildren(...ends.map((text) => make("span", { textContent: text })));
    const from = map.scale === "count" ? 5 : 0;
    byId("map-bar").style.background = `linear-gradient(90deg, ${Array.from({ length: 11 - from }, (_, i) => palettes[theme()][`d${from + i}`]).join(", ")})`;
  }
  // The cells furthest from chance, as links: the map without colours or a pointer.
  function list() {
    const far = (value) => Math.abs(SHADES[map.scale](value));
    const cells = [...table.querySelectorAll("td[data-opens]")].map((cell) => [Number(cell.dataset.r), Number(cell.dataset.c)])
      .filter(([r, c]) => far(map.cells[r][c][0]) > 0 && !map.within?.[r][c]);
    cells.sort((a, b) => far(map.cells[b[0]][b[1]][0]) - far(map.cells[a[0]][a[1]][0]));
    const once = new Set(); // two heads that are closest to each other are one entry
    const shown = [];
    for (const [r, c] of cells) {
      const [kind, stem, marks = ""] = map.cells[r][c][2].split("/");
      const name = kind === "heads" ? `${kind}/${stem}/${marks.split("-").sort().join("-")}` : map.cells[r][c][2];
      if (once.has(name)) continue;
      once.add(name);
      shown.push(make("li", {}, opener(short(r, c), map.cells[r][c][2], { title: said(r, c) })));
      if (shown.length === 5) break;
    }
    byId("map-list").replaceChildren(...shown);
    byId("map-furthest").hidden = shown.length === 0;
    if (map.furthest) byId("map-furthest").querySelector("h3").textContent = map.furthest;
  }
  const at = (r, c) => table.querySelector(`td[data-r="${r}"][data-c="${c}"]`);
  function reachCell(r, c) {
    const cell = at(Math.min(map.rows.length - 1, Math.max(0, r)), Math.min(map.columns.length - 1, Math.max(0, c)));
    table.querySelector('td[tabindex="0"]').tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
  }
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td[data-r]");
    if (!cell) return;
    const [r, c] = [Number(cell.dataset.r), Number(cell.dataset.c)];
    const steps = { ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], Home: [r, 0], End: [r, Infinity], PageUp: [0, c], PageDown: [Infinity, c] };
    if (steps[event.key]) reachCell(...steps[event.key]);
    else if (event.key === "Enter" || event.key === " ") openCell(cell);
    else return;
    event.preventDefault();
  });
  function openCell(cell) {
    if (cell.dataset.opens) go(cell.dataset.opens);
    else announce(said(cell.dataset.r, cell.dataset.c));
  }
  table.addEventListener("click", (event) => {
    const cell = event.target.closest("td[data-r]");
    if (cell) openCell(cell);
  });
  const read = (event) => {
    const cell = event.target.closest("td[data-r]");
    if (cell) readout.textContent = said(cell.dataset.r, cell.dataset.c);
  };
  table.addEventListener("mouseover", read);
  table.addEventListener("focusin", read);
  select.addEventListener("change", () => { fill(); chosen(Number(select.value)); });
  onTheme(paintMap);
  addSave(table.closest("figure"), () => ({ spec: mapSpec(map), alt: map.fileTitle ?? map.title, rows: () => mapRows(map) }));
  fill();
  return { fill: (index) => { select.value = String(index); fill(); } };
}

// What is open below has an outline in the map.
const openNow = { pair: null, heads: null }; // target; {layer, count, marks}
function markMap() {
  const table = byId("map-grid");
  if (!table?.tHead) return;
  const columns = table.tHead.rows[0].cells.length - 1;
  for (const cell of table.querySelectorAll("td[data-opens]")) {
    const target = cell.dataset.opens;
    const { layer, count, marks } = openNow.heads ?? {};
    const within = layer && target.startsWith(`heads/${layer}.`) && marks.includes(Math.floor((Number(cell.dataset.c) * count) / columns));
    cell.classList.toggle("open", target === openNow.pair || Boolean(within));
  }
}

// Downloads: each figure as PNG, SVG and CSV, each table as CSV, with names that say whose they are.
let model = "model";

const slug = (text) => text.normalize("NFKD").replace(/[^A-Za-z0-9._+-]+/g, "-").replace(/^[-.]+|[-.]+$/g, "");
const fileName = (about, ending) => `${slug(model).slice(0, 60)}-${slug(about).toLowerCase().slice(0, 80)}.${ending}`;

function download(name, content, type) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  const link = make("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
  announce(`Saved ${name}.`);
}

// Names come from the file that was scanned: one that a spreadsheet would run is made text.
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
const csvText = (rows) => rows.map((row) => `${row.map(csvCell).join(",")}\r\n`).join("");

// A band is a polygon there and back: its halves are the lower and the upper end.
function traceRows(trace) {
  const { x, y, name, customdata, fill } = trace;
  if (!fill) return x.map((at, index) => [name, at, y[index], customdata?.[index] ?? ""]);
  const half = x.length / 2;
  return x.map((at, index) => [`${name}, ${index < half ? "low" : "high"}`, at, y[index], ""]);
}

function figureRows({ data, layout }) {
  const title = (side, name) => layout[side].title?.text || name;
  const shown = data.filter((trace) => trace.type !== "heatmap" && trace.x?.[0] !== null && trace.name !== "opened");
  return [["series", title("xaxis", "x"), title("yaxis", "y"), "object"], ...shown.flatMap(traceRows)];
}

async function saveImage({ spec, alt }, format, [width, height]) {
  const Plotly = await loadPlotly();
  const { data, layout } = painted(spec);
  const legend = layout.showlegend ? 34 : 0;
  const titled = {
    ...layout,
    title: { text: alt, font: { size: 15 }, x: 0.02, xanchor: "left", y: 0.985, yanchor: "top" },
    paper_bgcolor: palettes[theme()].paper,
    margin: { l: 60, r: 24, t: 44 + legend, b: 48 },
    shapes: layout.shapes ?? [],
  };
  const size = { width: Math.max(width, 480), height: Math.max(height, 240) + 60 + legend };
  const address = await Plotly.toImage({ data, layout: { ...titled, ...size }, config: {} }, { format, ...size, scale: 2 });
  const [head, body] = [address.slice(0, address.indexOf(",")), address.slice(address.indexOf(",") + 1)];
  const base64 = head.endsWith(";base64");
  const bytes = base64 ? Uint8Array.from(atob(body), (c) => c.charCodeAt(0)) : decodeURIComponent(body);
  download(fileName(alt, format), bytes, format === "png" ? "image/png" : "image/svg+xml");
}

// A small menu in the corner of a figure; `get` gives {spec, alt, rows} of what it shows now.
function addSave(figure, get) {
  if (!figure) return;
  const menu = make("details", { className: "save" });
  const summary = make("summary", { textContent: "Save" });
  const plot = figure.querySelector(".plot, .map");
  const choices = ["PNG", "SVG", "CSV"].map((name) => {
    const button = make("button", { type: "button", textContent: name });
    button.addEventListener("click", async () => {
      const { spec, alt, rows } = get();
      menu.open = false;
      summary.focus();
      if (!spec?.data.length) announce("There is nothing to save here.");
      else if (name === "CSV") download(fileName(alt, "csv"), csvText(rows ? rows() : figureRows(spec)), "text/csv");
      else await saveImage({ spec, alt }, name.toLowerCase(), [plot.offsetWidth, plot.offsetHeight]);
    });
    return button;
  });
  menu.append(summary, make("div", {}, ...choices));
  menu.addEventListener("toggle", () => summary.setAttribute("aria-label", `Save: ${get().alt ?? "figure"}`));
  summary.setAttribute("aria-label", "Save this figure");
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    summary.focus();
  });
  menu.addEventListener("focusout", (event) => { if (!menu.contains(event.relatedTarget)) menu.open = false; });
  figure.append(menu);
}

// Cells that open their rows or their head, with a URL that comes back to them.
function press(attribute, key) {
  for (const cell of document.querySelectorAll(`button[data-${attribute}]`)) {
    cell.setAttribute("aria-pressed", String(cell.dataset[attribute] === key));
  }
}

function showMaps(key) {
  const title = byId("table-maps");
  const rows = [...document.querySelectorAll("tr[data-key]")];
  const some = rows.filter((row) => row.dataset.key === key);
  if (!title || !some.length) return;
  for (const row of rows) row.hidden = row.dataset.key !== key;
  press("map", key);
  const note = byId("maps-filter");
  const all = make("button", { type: "button", textContent: `Show all ${rows.length.toLocaleString("en")}` });
  all.addEventListener("click", () => {
    for (const row of rows) row.hidden = false;
    note.hidden = true;
    press("map", null);
    history.replaceState(null, "", "#table-maps");
  });
  const [stack, layer, role] = key.split("/");
  const alone = some.length === 1 && some[0].querySelector("th").textContent === key;
  note.replaceChildren(alone ? `Only ${key}. ` : `Only ${role} of layer ${layer} (${stack}). `, all);
  note.hidden = false;
  title.scrollIntoView();
}

function line(values, largest, count, name) {
  const x = (index) => 36 + (count > 1 ? (index * 372) / (count - 1) : 186);
  const y = (value) => 216 - (200 * value) / largest;
  const path = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  path.setAttribute("class", name);
  path.setAttribute("points", values.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" "));
  return path;
}

function label(text, x, y, anchor) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", "text");
  element.setAttribute("x", x);
  element.setAttribute("y", y);
  element.setAttribute("text-anchor", anchor);
  element.textContent = text;
  return element;
}

async function showHead(name) {
  const panels = await inflateJson("head-data");
  const panel = byId("head-panel");
  const head = Object.hasOwn(panels, name) ? panels[name] : null;
  if (!panel || !head) return;
  byId("head-title").textContent = name;
  const row = (first, ...rest) => make("tr", {}, make("th", { scope: "row", textContent: first }), ...rest.map((text) => make("td", { textContent: text })));
  byId("head-change").replaceChildren(...head.change.map((cells) => row(...cells)));
  byId("head-values").replaceChildren(...head.values.map((cells) => row(...cells)));
  byId("head-values").parentElement.hidden = !head.values.length;
  const [a, b] = head.spectrum;
  const largest = Math.max(...a, ...b, 0);
  const drawing = byId("head-spectrum");
  drawing.closest("figure").hidden = !(largest > 0);
  if (largest > 0) {
    const count = Math.max(a.length, b.length);
    drawing.replaceChildren(line(a, largest, count, "line-a"), line(b, largest, count, "line-b"),
      label(largest.toPrecision(3), 32, 22, "end"), label("0", 32, 220, "end"), label("1", 36, 234, "middle"), label(String(count), 408, 234, "end"));
  }
  panel.hidden = false;
  press("head", name);
  panel.scrollIntoView({ block: "nearest" });
}

function follow() {
  const [kind, ...rest] = decodeURIComponent(location.hash.slice(1)).split("=");
  if (kind === "map") showMaps(rest.join("="));
  if (kind === "head") showHead(rest.join("="));
}
for (const kind of ["map", "head"]) {
  for (const cell of document.querySelectorAll(`button[data-${kind}]`)) {
    cell.addEventListener("click", () => {
      const hash = `#${kind}=${encodeURIComponent(cell.dataset[kind])}`;
      if (location.hash === hash) follow();
      else location.hash = hash;
    });
  }
}
addEventListener("hashchange", follow);
follow();

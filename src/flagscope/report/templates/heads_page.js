// Maps of the spaces, and the two heads that a cell stands for, with a URL that comes back to them.
let maps = [];

function showPair(space, first, second) {
  const chosen = maps[space];
  const names = chosen?.spec.data[0]?.y;
  const [i, j] = [names?.indexOf(first) ?? -1, names?.indexOf(second) ?? -1];
  if (i < 0 || j < 0 || i === j || !chosen.each) return;
  byId("pair-title").textContent = `${first} and ${second}`;
  const rows = [];
  maps.forEach((map, index) => {
    if (map.group !== chosen.group || !map.spec.data.length) return;
    const labels = map.spec.data[0].y;
    const [a, b] = [labels.indexOf(first), labels.indexOf(second)];
    const title = document.querySelector(`[data-map="${index}"]`)?.closest("figure").querySelector("h3").textContent;
    const row = make("tr", {}, make("th", { scope: "row", textContent: title ?? "" }));
    if (a < 0 || b < 0) row.append(make("td", { colSpan: 3, textContent: "not measured" }));
    else {
      const ratio = map.spec.data[0].z[a][b];
      const chance = Math.max(map.ranks[a], map.ranks[b]) / map.d;
      for (const value of [ratio, ratio * chance, chance]) row.append(make("td", { textContent: value.toPrecision(3) }));
    }
    rows.push(row);
  });
  byId("pair-rows").replaceChildren(...rows);
  byId("pair-panel").hidden = false;
}

function follow() {
  const [kind, value] = location.hash.slice(1).split("=");
  if (kind !== "pair" || !value) return;
  const [space, first, second] = decodeURIComponent(value).split(",");
  showPair(Number(space), first, second);
  byId("pair-panel")?.scrollIntoView({ block: "nearest" });
}

// Plotly gives an element its events once it is drawn.
function whenDrawn(element, then) {
  if (element.on) then();
  else {
    const watcher = new MutationObserver(() => {
      if (!element.on) return;
      watcher.disconnect();
      then();
    });
    watcher.observe(element, { attributes: true, childList: true, subtree: true });
  }
}

async function start() {
  if (!byId("data-maps").textContent) return;
  const data = await inflateJson("data-maps");
  palettes = data.palettes;
  maps = data.maps;
  for (const element of document.querySelectorAll("[data-map]")) {
    const index = Number(element.dataset.map);
    show(element, maps[index].spec, maps[index].alt, "No map here.");
    if (!maps[index].each) continue;
    whenDrawn(element, () => element.on("plotly_click", ({ points: [point] }) => {
      if (point.x === point.y) return;
      const hash = `#pair=${encodeURIComponent([index, point.y, point.x].join(","))}`;
      if (location.hash === hash) follow();
      else location.hash = hash;
    }));
  }
  follow();
  document.documentElement.dataset.ready = "true";
}
addEventListener("hashchange", follow);
start().catch((error) => complain(`The maps could not be drawn: ${error.message}`));

// Maps of the spaces, and the two heads that a cell stands for: #pair/SPACE/L0H2-L2H1.
let maps = [];

// Two heads in every space in which heads have the same numbers.
function pairRows(group, first, second) {
  return maps.flatMap((map) => {
    const labels = map.spec.data[0]?.y;
    if (map.group !== group || !labels) return [];
    const [a, b] = [labels.indexOf(first), labels.indexOf(second)];
    if (a < 0 || b < 0) return [[map.title, "not measured", "", ""]];
    const ratio = map.spec.data[0].z[a][b];
    const chance = Math.max(map.ranks[a], map.ranks[b]) / map.d;
    return [[map.title, ...[ratio, ratio * chance, chance].map((value) => value.toPrecision(3))]];
  });
}

openers.pair = (name) => {
  const [space, both] = name.split("/");
  const chosen = maps[space];
  const [first, second] = (both ?? "").split("-");
  const names = chosen?.each ? chosen.spec.data[0]?.y ?? [] : [];
  if (!names.includes(first) || !names.includes(second) || first === second) return null;
  const [one, other] = [first, second].map((label) => label.split("H")[0]);
  const apart = chosen.basis === "shared" || one === other ? "" : chosen.basis === "unknown" ? ": layers without a known common basis" : ": layers without a common basis";
  byId("pair-title").textContent = `${first} and ${second}${apart}`;
  byId("pair-rows").replaceChildren(...pairRows(chosen.group, first, second).map(([title, ...cells]) =>
    make("tr", {}, make("th", { scope: "row", textContent: title }), ...cells.map((textContent) => make("td", { textContent })))));
  const panel = byId("pair-panel");
  panel.hidden = false;
  return { target: `pair/${name}`, mark: panel, heading: byId("pair-title"), said: `${first} and ${second}.` };
};

async function start() {
  setUpTables();
  model = document.querySelector("h1").dataset.model;
  if (byId("data-maps").textContent) {
    const data = await inflateJson("data-maps");
    palettes = data.palettes;
    maps = data.maps;
    for (const element of document.querySelectorAll("[data-map]")) {
      const { spec, alt } = maps[element.dataset.map];
      const { x, y, z } = spec.data[0];
      const rows = () => [["", ...x], ...z.map((row, index) => [y[index], ...row])];
      show(element, { spec, alt, empty: "No map here.", rows });
    }
    setUpPrint();
  }
  setUpRoutes();
  document.documentElement.dataset.ready = "true";
}
start().catch((error) => complain(`The maps could not be drawn: ${error.message}`));

// Start: inflate the data, set up each part, open what the URL names.
async function start() {
  if (typeof DecompressionStream === "undefined") {
    complain("This browser cannot inflate the figures and tables in this page (it needs DecompressionStream: Chrome 80, Firefox 113, Safari 16.4 or newer). Findings, overview and explanations are complete.");
    return;
  }
  setUpGauge();
  const core = await inflateJson("data-core");
  palettes = core.palettes;
  model = core.model;
  setUpMap(core);
  const ring = setUpDepth(core);
  setUpHeads(core);
  setUpStream(core);
  setUpLinks(core);
  setUpPair(core, ring);
  const pairName = (index) => core.tables.pairs.rows[index][0][1];
  const group = (index) => core.heads.groups[index];
  const rows = {
    pairs: [pairName, (index) => pairTarget(core.tables.pairs.rows[index])],
    heads: [(index) => group(index).title, (index) => `heads/${group(index).key}`],
    links: [(index) => core.tables.links.rows[index].slice(0, 2).map((cell) => cell[1]).join(" → "), (index) => core.tables.links.targets[index]],
  };
  for (const holder of document.querySelectorAll("[data-table]")) {
    setUpTable(holder, core.tables[holder.dataset.table], ...rows[holder.dataset.table]);
  }
  setUpPrint();
  setUpRoutes();
  document.documentElement.dataset.ready = "true";
}

const links = [...document.querySelectorAll(".bar a")];
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links) link.classList.toggle("here", link.hash === `#${entry.target.id}`);
  }
}, { rootMargin: "-20% 0px -75%" });
for (const section of document.querySelectorAll("main section")) watcher.observe(section);
start().catch((error) => complain(`The figures could not be set up: ${error.message}`));

// Start: inflate the data, set up each part, follow links to figures.
async function start() {
  if (typeof DecompressionStream === "undefined") {
    complain("This browser cannot inflate the figures and tables in this page (it needs DecompressionStream: Chrome 80, Firefox 113, Safari 16.4 or newer). Findings, overview and explanations are complete.");
    return;
  }
  const core = await inflateJson("data-core");
  palettes = core.palettes;
  const chooseTrack = setUpDepth(core);
  const openGroup = setUpHeads(core);
  setUpStream(core);
  const openPair = setUpPair(core);
  const go = (id) => byId(id)?.scrollIntoView();
  for (const holder of document.querySelectorAll("[data-table]")) {
    const pairs = holder.dataset.table === "pairs";
    setUpTable(holder, core.tables[holder.dataset.table], pairs ? (index) => { openPair(index); go("pair"); } : null);
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-target]");
    if (!link) return;
    event.preventDefault();
    const [kind, ...rest] = link.dataset.target.split("/");
    const what = rest.join("/");
    if (kind === "track") { chooseTrack(core.tracks.findIndex((track) => track.key === what)); go("depth"); }
    if (kind === "heads") { openGroup(parseInt(what, 10)); go("space-tabs"); }
    if (kind === "link") go("links");
    if (kind === "pair") { openPair(Number(what)); go("pair"); }
    if (kind === "section") go(what);
  });
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

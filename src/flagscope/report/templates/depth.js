// Depth profiles: one track at a time.
function tabs(fieldset, name, titles, choose) {
  titles.forEach((title, index) => {
    const input = make("input", { type: "radio", name, value: String(index) });
    input.addEventListener("change", () => choose(index, true));
    fieldset.append(make("label", {}, input, make("span", { textContent: title })));
  });
  return (index) => { fieldset.querySelectorAll("input")[index].checked = true; choose(index, false); };
}

const REMARKS = {
  gl: "Any invertible change g of the shared space, (gW1, W2g⁻¹), leaves the function as it is, so that these numbers depend on the gauge; once balanced, C = 0 and ρ = 1 for every pair that shares neither of its maps.",
  rotary: "Each frequency plane of the shared space can be turned and rescaled without changing the function, so that these numbers depend on the gauge; dashed: scales balanced plane by plane.",
  scaling: "Each neuron can be rescaled without changing the function, so that these numbers depend on the gauge; dashed: scales balanced neuron by neuron.",
  scale: "A norm takes out the size of each map: the imbalance and the size of the product are gauge, all other numbers functional.",
  permutation: "The function fixes the shared space up to the order of its neurons: these numbers are functional.",
  outer: "The stream fixes the shared space, but inside its block the other side of a map can be changed without changing the function, which reweighs the directions that it writes or reads: these numbers depend on that gauge; ranks and the kernel intersection do not.",
  unknown: "What lies between the two maps is not known, and so not which changes of the shared space leave the function as it is: these numbers may depend on the gauge.",
  none: "No change of the shared space is known that leaves the function as it is: none is known to move these numbers.",
};

function setUpDepth(core) {
  const fieldset = byId("track-tabs");
  if (!fieldset || core.tracks.length === 0) return null;
  const figures = [...document.querySelectorAll("[data-observable]")];
  const { rows } = core.tables.pairs;
  let current = 0;
  let opened = null; // target of the pair with a ring
  function fill() {
    const track = core.tracks[current];
    const charts = figures.map((figure) => track.charts[figure.dataset.observable]);
    const gauge = (chart) => chart.label === "gauge";
    const all = gaugeShown() || charts.every(gauge);
    byId("track-remark").textContent = REMARKS[track.freedom];
    const shown = figures.flatMap((figure, index) => {
      const chart = charts[index];
      figure.hidden = gauge(chart) && !all;
      fillChip(figure.querySelector("[data-label]"), chart.label);
      const spec = opened ? ringed(chart.spec, opened) : chart.spec;
      show(figure.querySelector(".plot"), { spec, alt: chart.alt, empty: chart.why || "No pair of this kind has this number." });
      return figure.hidden ? [] : [spec];
    });
    fillKey(byId("track-key"), shown);
    const folded = charts.length - shown.length;
    byId("track-folded").textContent = foldedWords(folded) || (charts.every(gauge) ? "All numbers of this kind are gauge." : "");
  }
  const choose = tabs(fieldset, "track", core.tracks.map((track) => track.title), (index, byReader) => {
    current = index;
    fill();
    if (byReader) go(`track/${core.tracks[index].key}`, { scroll: false });
  });
  choose(0);
  gaugeListeners.push(fill);
  openers.track = (key) => {
    const index = core.tracks.findIndex((track) => track.key === key);
    if (index < 0) return null;
    if (index !== current) choose(index);
    return { target: `track/${key}`, mark: byId("depth-charts"), heading: byId("h-depth"), said: `Through depth: ${core.tracks[index].title}.` };
  };
  return (index) => {
    opened = pairTarget(rows[index]);
    choose(core.tracks.findIndex((track) => track.pairs.includes(index)));
  };
}

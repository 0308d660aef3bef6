// Depth profiles: one track at a time.
function tabs(fieldset, name, titles, choose) {
  titles.forEach((title, index) => {
    const input = make("input", { type: "radio", name, value: String(index) });
    input.addEventListener("change", () => choose(index));
    fieldset.append(make("label", {}, input, make("span", { textContent: title })));
  });
  return (index) => { fieldset.querySelectorAll("input")[index].checked = true; choose(index); };
}

const REMARKS = {
  gl: "Any invertible change g of the shared space, (gW1, W2g⁻¹), leaves the function as it is, so that these numbers depend on the gauge; once balanced, C = 0 and ρ = 1 for every pair that shares neither of its maps.",
  rotary: "Each frequency plane of the shared space can be turned and rescaled without changing the function, so that these numbers depend on the gauge; dashed: scales balanced plane by plane.",
  scaling: "Each neuron can be rescaled without changing the function, so that these numbers depend on the gauge; dashed: scales balanced neuron by neuron.",
  scale: "A norm takes out the size of each map: the imbalance and the size of the product are gauge, all other numbers functional.",
  permutation: "The function fixes the shared space up to the order of its neurons: these numbers are functional.",
  outer: "The stream fixes the shared space, but inside its block the other side of a map can be changed without changing the function, which reweighs the directions that it writes or reads: these numbers depend on that gauge; ranks and the kernel intersection do not.",
  none: "No change of the shared space is known that leaves the function as it is: none is known to move these numbers.",
};

function setUpDepth(core) {
  const fieldset = byId("track-tabs");
  if (!fieldset || core.tracks.length === 0) return null;
  const figures = [...document.querySelectorAll("[data-observable]")];
  const choose = tabs(fieldset, "track", core.tracks.map((track) => track.title), (index) => {
    const track = core.tracks[index];
    byId("track-remark").textContent = REMARKS[track.freedom];
    for (const figure of figures) {
      const chart = track.charts[figure.dataset.observable];
      const chip = figure.querySelector("[data-label]");
      chip.textContent = chart.label ?? "";
      chip.className = `chip ${chart.label ?? ""}`;
      show(figure.querySelector(".plot"), chart.spec, chart.alt, chart.why || "No pair of this kind has this number.");
    }
  });
  choose(0);
  return choose;
}

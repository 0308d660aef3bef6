// One pair: its numbers, raw beside balanced and chance, and its figures.
function setUpPair(core) {
  const trackSelect = byId("pair-track");
  if (!trackSelect || core.tracks.length === 0) return null;
  const pairSelect = byId("pair-select");
  const { columns, rows } = core.tables.pairs;
  const at = Object.fromEntries(columns.map((column, index) => [column.key, index]));
  const shown = columns.filter((column) => !["name", "layer", "status", "freedom"].includes(column.key));
  let details = null;
  core.tracks.forEach((track, index) => trackSelect.append(make("option", { value: String(index), textContent: track.title })));

  function fill(track) {
    trackSelect.value = String(track);
    pairSelect.replaceChildren(...core.tracks[track].pairs.map((index) =>
      make("option", { value: String(index), textContent: rows[index][0][1] })));
  }
  async function open(index) {
    const row = rows[index];
    const track = core.tracks.findIndex((one) => one.pairs.includes(index));
    if (trackSelect.value !== String(track) || pairSelect.options.length === 0) fill(track);
    pairSelect.value = String(index);
    byId("pair-previous").disabled = pairSelect.selectedIndex === 0;
    byId("pair-next").disabled = pairSelect.selectedIndex === pairSelect.options.length - 1;
    byId("pair-title").textContent = row[0][1];
    const freedom = [row[at.freedom][1], row[at.freedom][2]].filter(Boolean).join("; ");
    byId("pair-sub").textContent = [row[0][2], `freedom: ${freedom}`, row[at.freedom][3] && `balanced: ${row[at.freedom][3]}`, `status: ${row[at.status][1]}`].filter(Boolean).join(" · ");
    byId("pair-numbers").tBodies[0].replaceChildren(...shown.map((column) => {
      const [, text, chance, balanced, label] = row[at[column.key]];
      const head = make("th", { scope: "row", title: column.hint }, column.name);
      return make("tr", {}, head, make("td", {}, text, " ", mark(label)), make("td", { textContent: balanced }), make("td", { textContent: chance }));
    }));
    details ??= inflateJson("data-details");
    const figures = (await details)[index];
    if (pairSelect.value !== String(index)) return;
    byId("pair-remark").textContent = figures?.remark ?? "";
    const why = figures ? "This pair has no such numbers." : `Figures are kept for the ${DETAILED} pairs furthest from chance; the JSON has all.`;
    for (const name of ["incidence", "cosines", "profile"]) {
      show(byId(`pair-${name}`), figures?.[name], `${name} of ${row[0][1]}`, why);
    }
  }
  trackSelect.addEventListener("change", () => {
    fill(Number(trackSelect.value));
    open(core.tracks[Number(trackSelect.value)].first);
  });
  pairSelect.addEventListener("change", () => open(Number(pairSelect.value)));
  for (const [id, step] of [["pair-previous", -1], ["pair-next", 1]]) {
    byId(id).addEventListener("click", () => {
      pairSelect.selectedIndex += step;
      open(Number(pairSelect.value));
    });
  }
  const first = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    first.disconnect();
    if (pairSelect.options.length === 0) open(core.tracks[0].first);
  }, { rootMargin: "400px" });
  first.observe(byId("pair"));
  if (byId("pair").getBoundingClientRect().top < innerHeight) open(core.tracks[0].first);
  return open;
}

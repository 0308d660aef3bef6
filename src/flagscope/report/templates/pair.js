// One pair: its numbers, raw beside balanced and chance, and its figures.
function setUpPair(core, ring) {
  const trackSelect = byId("pair-track");
  if (!trackSelect || core.tracks.length === 0) return;
  const pairSelect = byId("pair-select");
  const { columns, rows } = core.tables.pairs;
  const at = Object.fromEntries(columns.map((column, index) => [column.key, index]));
  const shown = columns.filter((column) => !["name", "kind", "layer", "status", "freedom"].includes(column.key));
  const names = new Map(rows.map((row, index) => [row[0][1], index]));
  let details = null;
  core.tracks.forEach((track, index) => trackSelect.append(make("option", { value: String(index), textContent: track.title })));

  function list(track) {
    trackSelect.value = String(track);
    pairSelect.replaceChildren(...core.tracks[track].pairs.map((index) =>
      make("option", { value: String(index), textContent: rows[index][0][1] })));
  }
  function heads(index) {
    const holder = byId("pair-heads");
    const place = core.pairHeads[index];
    const [spaces, head] = place && /\.qk$/.test(rows[index][0][1]) ? [["q", "k"], [1, 2]] : [["v", "o"], [2, 1]];
    const buttons = place === null ? [] : spaces.flatMap((space, side) => {
      const key = `${place[0]}.${space}`;
      return core.heads.groups.some((group) => group.key === key)
        ? [opener(`${SPACES[space]} heads of the layer`, `heads/${key}/${place[head[side]]}`)] : [];
    });
    holder.replaceChildren(...buttons);
    holder.hidden = buttons.length === 0;
  }
  function numbers(row) {
    const label = (column) => row[at[column.key]][4];
    const folded = shown.filter((column) => label(column) === "G");
    byId("pair-numbers").tBodies[0].replaceChildren(...shown.map((column) => {
      const [, text, chance, balanced] = row[at[column.key]];
      const head = make("th", { scope: "row", title: column.hint }, column.name);
      const gauge = label(column) === "G" ? "gauge-only" : "";
      return make("tr", { className: gauge }, head, make("td", {}, text, " ", mark(label(column))), make("td", { textContent: balanced }), make("td", { textContent: chance }));
    }));
    byId("pair-numbers").classList.toggle("no-balanced", !shown.some((column) => row[at[column.key]][3] && (gaugeShown() || label(column) !== "G")));
    byId("pair-folded").textContent = foldedWords(folded.length);
  }
  async function fill(index) {
    const row = rows[index];
    const track = core.tracks.findIndex((one) => one.pairs.includes(index));
    if (trackSelect.value !== String(track) || pairSelect.options.length === 0) list(track);
    pairSelect.value = String(index);
    byId("pair-previous").disabled = pairSelect.selectedIndex === 0;
    byId("pair-next").disabled = pairSelect.selectedIndex === pairSelect.options.length - 1;
    byId("pair-title").textContent = row[0][1];
    const freedom = [row[at.freedom][1], row[at.freedom][2]].filter(Boolean).join("; ");
    byId("pair-sub").textContent = [row[at.kind][1], `freedom: ${freedom}`, row[at.freedom][3] && `balanced: ${row[at.freedom][3]}`, `status: ${row[at.status][1]}`].filter(Boolean).join(" · ");
    heads(index);
    numbers(row);
    openNow.pair = pairTarget(row);
    markMap();
    details ??= inflateJson("data-details");
    const figures = (await details)[index];
    if (pairSelect.value !== String(index)) return;
    byId("pair-remark").textContent = figures?.remark ?? "";
    const empty = figures ? "This pair has no such numbers." : `Figures are kept for the ${DETAILED} pairs furthest from chance; the JSON has all.`;
    const spec = (name) => figures?.[name] ?? { data: [], layout: {} };
    const surface = spec("incidence").data[0];
    const rows_ = surface && (() => [["i", "j", "S", "chance", "times chance"], ...surface.y.flatMap((i, r) => surface.x.map((j, c) => [i, j, ...surface.customdata[r][c]]))]);
    byId("pair-cosines-sub").textContent = cosineKey(spec("cosines"));
    show(byId("pair-incidence"), { spec: spec("incidence"), alt: `Incidence surface of ${row[0][1]}`, empty, rows: rows_ ?? null });
    show(byId("pair-cosines"), { spec: spec("cosines"), alt: `Principal cosines of ${row[0][1]}`, empty });
    show(byId("pair-profile"), { spec: spec("profile"), alt: `Overlap ratio over rank of ${row[0][1]}`, empty });
  }
  // Only the colours that are drawn.
  function cosineKey(spec) {
    const colours = spec.data[0]?.marker?.color ?? [];
    return [
      colours.includes("$strong") ? "orange: above the 1 % critical value of the largest" : "",
      colours.includes("$chance") ? "grey: 1 by dimension alone, whatever the weights are" : "",
    ].filter(Boolean).join("; ");
  }
  const step = (index) => go(pairTarget(rows[index]), { scroll: false });
  trackSelect.addEventListener("change", () => {
    list(Number(trackSelect.value));
    step(core.tracks[Number(trackSelect.value)].first);
  });
  pairSelect.addEventListener("change", () => step(Number(pairSelect.value)));
  for (const [id, by] of [["pair-previous", -1], ["pair-next", 1]]) {
    byId(id).addEventListener("click", () => step(Number(pairSelect.options[pairSelect.selectedIndex + by].value)));
  }

  gaugeListeners.push(() => numbers(rows[Number(pairSelect.value)]));

  // By name, or by place in the JSON.
  openers.pair = (what) => {
    const index = names.get(what) ?? (/^\d+$/.test(what) ? Number(what) : -1);
    if (!rows[index]) return null;
    fill(index);
    ring(index);
    return { target: pairTarget(rows[index]), mark: byId("pair-card"), heading: byId("pair-title"), said: `Pair ${rows[index][0][1]}.` };
  };
  fill(core.tracks[0].first);
}

// Heads: overview, small multiples, and one group up close.
function paintThumb(canvas, spec) {
  const heat = spec.data[0];
  if (!heat) return;
  const n = heat.z.length;
  const scale = painted(heat.colorscale);
  const image = new ImageData(n, n);
  heat.z.flat().forEach((value, index) => {
    const place = value === null ? null : (value - heat.zmin) / (heat.zmax - heat.zmin);
    const colour = place === null ? [128, 128, 128] : colourAt(scale, Math.min(1, Math.max(0, place)));
    image.data.set([...colour, place === null ? 70 : 255], 4 * index);
  });
  canvas.width = canvas.height = n;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// A box around the rows and columns of marked heads, dark on light so that any colour shows it.
function markedHeads(spec, marks) {
  const heat = spec?.data[0];
  if (!heat || marks.length === 0) return spec;
  const places = marks.map((head) => heat.x.indexOf(String(head))).filter((place) => place >= 0);
  const box = (x, y, line) => ({ type: "rect", x0: x[0], x1: x[1], y0: y[0], y1: y[1], line, fillcolor: "rgba(0,0,0,0)" });
  const around = (place) => [place - 0.5, place + 0.5];
  const whole = [-0.5, heat.x.length - 0.5];
  const boxes = places.length === 2
    ? [[around(places[0]), around(places[1])], [around(places[1]), around(places[0])]]
    : places.map((place) => [whole, around(place)]);
  const shapes = boxes.flatMap(([x, y]) => [box(x, y, { color: "$paper", width: 6 }), box(x, y, { color: "$ink", width: 3 })]);
  return { ...spec, layout: { ...spec.layout, shapes: [...(spec.layout.shapes ?? []), ...shapes] } };
}

const matrixRows = (spec) => () => {
  const { x, y, customdata } = spec.data[0];
  return [["head", "other head", "overlap over chance"], ...y.flatMap((head, r) => x.flatMap((other, c) => (r === c ? [] : [[head, other, customdata[r][c]]])))];
};

const layerOf = (group) => group.key.slice(0, group.key.lastIndexOf("."));

function setUpHeads(core) {
  const fieldset = byId("space-tabs");
  if (!fieldset || core.heads.groups.length === 0) return;
  const { spaces, groups } = core.heads;
  const { rows } = core.tables.pairs;
  show(byId("head-overlap"), { spec: core.heads.overlap, alt: "Head overlap ratio over depth, one line a space" });
  show(byId("head-shared"), { spec: core.heads.shared, alt: "Number of shared head directions over depth, one line a space" });
  const thumbs = byId("thumbs");
  const last = spaces.map((space) => space.first);
  let current = 0;

  // Pairs inside the attention of marked heads: their query-key and value-output pairs.
  function pairsOf(group, marks) {
    const layer = layerOf(group);
    const side = /[qo]$/.test(group.key) ? 1 : 2;
    return core.pairHeads.flatMap((heads, index) => (heads && heads[0] === layer && marks.includes(heads[side]) ? [index] : [])).slice(0, 16);
  }
  function fillGroup(index, marks) {
    last[current] = index;
    const group = groups[index];
    openNow.heads = { layer: layerOf(group), count: group.matrix.data[0]?.x.length ?? 0, marks };
    byId("group-title").textContent = group.title[0].toUpperCase() + group.title.slice(1);
    const facts = group.facts.map((text) => make("li", { textContent: text }));
    byId("group-facts").replaceChildren(...facts.slice(0, 3));
    byId("group-more").replaceChildren(...facts.slice(3));
    const more = byId("group-more").parentElement;
    more.hidden = facts.length <= 3;
    more.querySelector("summary").textContent = `${facts.length - 3} more about close heads`;
    const words = marks.length ? `${marks.length === 1 ? "head" : "heads"} ${marks.join(", ")}` : "";
    const pairs = pairsOf(group, marks);
    byId("group-marked").hidden = !marks.length;
    byId("group-marked").replaceChildren(`Marked: ${words}. `, ...pairs.map((pair) =>
      opener(rows[pair][0][1], pairTarget(rows[pair]))));
    const outlined = group.matrix.layout.shapes?.length ? "; clusters stand together, outlined" : "";
    byId("head-matrix-sub").textContent = `in units of chance${outlined}; a cell marks its two heads`;
    show(byId("head-matrix"), { spec: markedHeads(group.matrix, marks), alt: `Overlap of heads, ${group.title}`, rows: group.matrix.data.length ? matrixRows(group.matrix) : null });
    show(byId("head-spectrum"), { spec: group.spectrum, alt: `Spectrum of the sum of projectors, ${group.title}` });
    for (const button of thumbs.children) button.setAttribute("aria-pressed", String(button.index === index));
    markMap();
  }
  function paintThumbs() {
    for (const button of thumbs.children) paintThumb(button.querySelector("canvas"), groups[button.index].matrix);
  }
  function fillSpace(space) {
    current = space;
    thumbs.classList.toggle("many", spaces[space].groups.length > 24);
    thumbs.replaceChildren(...spaces[space].groups.map((index) => {
      const button = make("button", { type: "button", "aria-label": `Open ${groups[index].title}` },
        make("canvas", {}), make("span", { textContent: String(groups[index].layer) }));
      button.index = index;
      button.addEventListener("click", () => go(`heads/${groups[index].key}`, { scroll: false }));
      return button;
    }));
    paintThumbs();
  }
  const choose = tabs(fieldset, "space", spaces.map((space) => space.title), (space, byReader) => {
    fillSpace(space);
    if (byReader) go(`heads/${groups[last[space]].key}`, { scroll: false });
  });
  onTheme(paintThumbs);
  choose(0);
  fillGroup(last[0], []);

  // By name, as in decoder.layer.3.q/1-3, or by place in the JSON, as in 3/1.
  openers.heads = (what) => {
    const [, name, list] = /^(.*?)(?:\/([\d-]+))?$/s.exec(what);
    let index = groups.findIndex((group) => group.key === name);
    if (index < 0 && /^\d+$/.test(name)) index = Number(name);
    if (!groups[index]) return null;
    const marks = list ? list.split("-").filter(Boolean).map(Number) : [];
    const space = Math.max(0, spaces.findIndex((one) => one.groups.includes(index)));
    if (space !== current) choose(space);
    fillGroup(index, marks);
    const said = `${byId("group-title").textContent}${marks.length ? `; marked: ${marks.join(", ")}` : ""}.`;
    return { target: `heads/${groups[index].key}${marks.length ? `/${marks.join("-")}` : ""}`, mark: byId("group"), heading: byId("group-title"), said };
  };
}

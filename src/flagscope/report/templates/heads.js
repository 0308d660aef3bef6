// Heads: overview, small multiples, and one group up close.
function colourAt(scale, position) {
  const above = scale.findIndex(([at]) => at >= position);
  const [hi, low] = [scale[Math.max(above, 0)], scale[Math.max(above - 1, 0)]];
  const part = hi[0] === low[0] ? 0 : (position - low[0]) / (hi[0] - low[0]);
  const channel = (colour, i) => parseInt(colour.slice(1 + 2 * i, 3 + 2 * i), 16);
  return [0, 1, 2].map((i) => Math.round(channel(low[1], i) * (1 - part) + channel(hi[1], i) * part));
}

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

function setUpHeads(core) {
  const fieldset = byId("space-tabs");
  if (!fieldset || core.heads.groups.length === 0) return null;
  const { spaces, groups } = core.heads;
  show(byId("head-overlap"), core.heads.overlap);
  show(byId("head-shared"), core.heads.shared);
  const thumbs = byId("thumbs");
  const last = spaces.map((space) => space.first);
  let current = 0;

  function openGroup(index) {
    last[current] = index;
    const group = groups[index];
    byId("group-title").textContent = group.title[0].toUpperCase() + group.title.slice(1);
    byId("group-facts").replaceChildren(...group.facts.map((text) => make("li", { textContent: text })));
    show(byId("head-matrix"), group.matrix, `Overlap of heads, ${group.title}`);
    show(byId("head-spectrum"), group.spectrum, `Spectrum of the sum of projectors, ${group.title}`);
    for (const button of thumbs.children) button.setAttribute("aria-pressed", String(button.index === index));
  }
  function paintThumbs() {
    for (const button of thumbs.children) paintThumb(button.querySelector("canvas"), groups[button.index].matrix);
  }
  const choose = tabs(fieldset, "space", spaces.map((space) => space.title), (space) => {
    current = space;
    thumbs.classList.toggle("many", spaces[space].groups.length > 24);
    thumbs.replaceChildren(...spaces[space].groups.map((index) => {
      const button = make("button", { type: "button", "aria-label": `Open ${groups[index].title}` },
        make("canvas", {}), make("span", { textContent: String(groups[index].layer) }));
      button.index = index;
      button.addEventListener("click", () => openGroup(index));
      return button;
    }));
    paintThumbs();
    openGroup(last[space]);
  });
  themed.push(paintThumbs);
  choose(0);
  return (index) => {
    const space = Math.max(0, spaces.findIndex((one) => one.groups.includes(index)));
    last[space] = index;
    choose(space);
  };
}

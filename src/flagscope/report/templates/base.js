// Elements, order, compressed data, theme.
const byId = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function complain(message) {
  const notice = byId("notice");
  notice.textContent = message;
  notice.hidden = false;
  document.documentElement.dataset.error = message;
}

// What a table sorts by: numbers, texts with their numbers in order, last what there is not.
function order(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null);
  const both = typeof a === "number" && typeof b === "number";
  return direction * (both ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
}

const inflated = new Map();
function inflate(id) {
  if (!inflated.has(id)) {
    inflated.set(id, (async () => {
      const holder = byId(id);
      const bytes = Uint8Array.from(atob(holder.textContent), (c) => c.charCodeAt(0));
      holder.remove();
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      return new Response(stream).text();
    })());
  }
  return inflated.get(id);
}
const inflateJson = async (id) => JSON.parse(await inflate(id));

const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
try { chosen = localStorage.getItem("flagscope-theme"); } catch { /* storage is off: no memory */ }
const theme = () => chosen || (system.matches ? "dark" : "light");
const themed = [];
function applyTheme() {
  document.documentElement.dataset.theme = theme();
  for (const redraw of themed) redraw();
}
document.documentElement.dataset.theme = theme();
system.addEventListener("change", applyTheme);
byId("theme").addEventListener("click", () => {
  chosen = theme() === "dark" ? "light" : "dark";
  try { localStorage.setItem("flagscope-theme", chosen); } catch { /* storage is off */ }
  applyTheme();
});

// Objects of the page by their names in the URL: #pair/NAME, #heads/GROUP/1-3, #track/KEY,
// #link/STACK/FROM/TO. Whatever opens one goes through here, so that reload, Back and Forward work.
const openers = {}; // kind -> (name) => {target, mark, heading, said}, or null for an unknown name

const hashOf = (target) => `#${encodeURIComponent(target).replaceAll("%2F", "/")}`;

const pairTarget = (row) => `pair/${row[0][1]}`; // of a row of the table of pairs

// A link to an object of the page.
const opener = (text, target, properties = {}) => make("a", { href: hashOf(target), textContent: text, "data-target": target, ...properties });

function targetInUrl() {
  try { return decodeURIComponent(location.hash.slice(1)); } catch { return location.hash.slice(1); }
}

function announce(text) {
  byId("said").textContent = text;
}

function outline(element) {
  for (const marked of document.querySelectorAll(".marked")) marked.classList.remove("marked");
  element?.classList.add("marked");
}

function reach(element, heading) {
  for (let around = heading.parentElement; around; around = around.parentElement) {
    if (around.tagName === "DETAILS") around.open = true;
  }
  element.scrollIntoView();
  if (!heading.matches("a, button, input, select, summary")) heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

// A new entry of the history; the one that is left keeps its place on the page. The browser would
// scroll back by itself, but after the object is opened, and away from it.
function remember(hash) {
  try {
    history.scrollRestoration = "manual";
    history.replaceState({ scroll: scrollY }, "");
    history.pushState(null, "", hash);
  } catch { /* a page inside another one may not be allowed a URL of its own */ }
}

// Open an object. Without `scroll` the reader stays where they are, as after a choice in a list.
function go(target, { push = true, scroll = true } = {}) {
  const [kind, ...rest] = target.split("/");
  const opened = Object.hasOwn(openers, kind) ? openers[kind](rest.join("/")) : null;
  if (!opened) {
    announce(`This page has nothing called ${target}.`);
    return false;
  }
  if (push && location.hash !== hashOf(opened.target)) remember(hashOf(opened.target));
  outline(scroll ? opened.mark : null);
  if (scroll) reach(opened.mark, opened.heading);
  announce(opened.said);
  return true;
}

function follow() {
  const target = targetInUrl();
  if (target.includes("/")) {
    go(target, { push: false });
    return;
  }
  outline(null);
  if (history.scrollRestoration === "auto") return;
  if (target) byId(target)?.scrollIntoView();
  else scrollTo({ top: history.state?.scroll ?? 0 });
}

openers.section = (id) => {
  const element = byId(id);
  if (!element) return null;
  const heading = element.querySelector("h2, h3, summary") ?? element;
  return { target: id, mark: element, heading, said: `${heading.textContent.trim()}.` };
};

function setUpRoutes() {
  addEventListener("popstate", follow);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-target]");
    if (!link) return;
    event.preventDefault();
    go(link.dataset.target);
  });
  follow();
}

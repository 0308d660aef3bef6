// Printing: every figure is drawn first, in the colours of paper, and scaled to the page's width.
const painters = []; // what is coloured here and not by Plotly
function onTheme(paintIt) {
  themed.push(paintIt);
  painters.push(paintIt);
}

function setUpPrint() {
  let before = null;
  const repaint = () => {
    for (const [element, plot] of plots) {
      if (window.Plotly && element.offsetWidth) paint(window.Plotly, element, plot);
    }
  };
  addEventListener("beforeprint", () => {
    if (before !== null) return;
    before = chosen ?? "";
    chosen = "light";
    document.documentElement.dataset.theme = "light";
    repaint();
    for (const svg of document.querySelectorAll(".plot .main-svg")) {
      svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
    }
    for (const paintIt of painters) paintIt();
  });
  addEventListener("afterprint", () => {
    if (before === null) return;
    chosen = before || null;
    before = null;
    document.documentElement.dataset.theme = theme();
    for (const svg of document.querySelectorAll(".plot .main-svg")) svg.removeAttribute("viewBox");
    repaint();
    for (const paintIt of painters) paintIt();
  });
}

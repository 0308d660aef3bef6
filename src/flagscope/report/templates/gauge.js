// Gauge numbers: those that a rewriting of the network can move are folded until asked for.
const gaugeShown = () => document.documentElement.dataset.gauge === "on";
const gaugeListeners = [];
function setGauge(on) {
  document.documentElement.dataset.gauge = on ? "on" : "off";
  for (const box of document.querySelectorAll("[data-gauge-switch]")) box.checked = on;
  for (const listener of gaugeListeners) listener();
}
// The label of a diagnostic, and how many are folded.
const foldedWords = (count) => (count ? `${count} gauge ${count === 1 ? "number is" : "numbers are"} folded.` : "");
function fillChip(chip, label) {
  chip.textContent = label ?? "";
  chip.className = `chip ${label ?? ""}`;
}
const LABELS = { F: "functional", G: "gauge" };
const mark = (label) => label
  ? make("b", { className: `mark ${label.toLowerCase()}`, textContent: label, title: LABELS[label] })
  : "";

function setUpGauge() {
  setGauge(false);
  for (const box of document.querySelectorAll("[data-gauge-switch]")) {
    box.addEventListener("change", () => {
      setGauge(box.checked);
      announce(box.checked ? "Gauge numbers are shown." : "Gauge numbers are folded.");
    });
  }
}

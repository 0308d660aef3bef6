// Tables of the page that are saved as they are shown, numbers in full.
function setUpTables() {
  for (const table of document.querySelectorAll("table[data-csv]")) {
    const button = make("button", { type: "button", className: "save-table", textContent: "Save as CSV" });
    button.addEventListener("click", () => {
      const rows = [...table.rows].map((row) => [...row.cells].map((cell) => cell.dataset.v ?? cell.textContent.trim()));
      download(fileName(table.dataset.csv, "csv"), csvText(rows), "text/csv");
    });
    (table.closest(".rows") ?? table).after(button);
  }
}

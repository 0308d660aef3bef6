// Tables that sort.
const numeric = (cell) => (cell.dataset.v === undefined || cell.dataset.v === "" ? null : Number(cell.dataset.v));

for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    head.querySelector("button").addEventListener("click", () => {
      const body = table.tBodies[0];
      const rows = [...body.rows];
      const numbers = rows.some((row) => row.cells[index].dataset.v !== undefined);
      // The first click on a number shows the largest, on a text the first.
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : !numbers;
      const value = (row) => (numbers ? numeric(row.cells[index]) : row.cells[index].textContent);
      rows.sort((a, b) => order(value(a), value(b), up ? 1 : -1));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}

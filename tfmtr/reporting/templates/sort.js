document.addEventListener("click", (event) => {
  const button = event.target.closest("table.sortable thead button");
  if (!button) return;
  const header = button.parentElement;
  const body = header.closest("table").tBodies[0];
  const cell = (row) => row.cells[header.cellIndex];
  const isNumber = [...body.rows].some((row) => cell(row).dataset.value !== undefined);
  const first = isNumber ? "descending" : "ascending";
  const second = isNumber ? "ascending" : "descending";
  const order = header.ariaSort === first ? second : first;
  for (const other of header.parentElement.cells) if (other.ariaSort) other.ariaSort = "none";
  header.ariaSort = order;
  const sign = order === "ascending" ? 1 : -1;
  const isMissing = (row) => cell(row).classList.contains("na");
  const compare = (a, b) => isNumber
    ? cell(a).dataset.value - cell(b).dataset.value
    : cell(a).textContent.localeCompare(cell(b).textContent, undefined, { numeric: true });
  const rows = [...body.rows].sort((a, b) => isMissing(a) - isMissing(b) || sign * compare(a, b) || 0);
  body.append(...rows);
});

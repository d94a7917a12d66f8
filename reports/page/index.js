// The index of runs: a filter above the table, and sorting by its heads. Without it the table is whole.
{
  const table = document.querySelector("table.runs");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  const field = made("input", { type: "search", id: "filter", autocomplete: "off" });
  const label = made("label", { htmlFor: "filter" }, "Show runs with ");
  const count = made("output", { htmlFor: "filter" });
  table.parentElement.before(made("p", { className: "filter" }, label, field, " ", count));

  function filter() {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !wanted.every((word) => words.get(row).includes(word));
    const left = rows.filter((row) => !row.hidden).length;
    count.textContent = left === rows.length ? "" : `${left} of ${rows.length}`;
  }
  field.addEventListener("input", filter);

  function value(row, at) {
    const marked = row.cells[at].querySelector("[data-value]");
    return marked ? Number(marked.dataset.value) : row.cells[at].textContent.trim().toLowerCase();
  }
  function compare(a, b) {
    if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
    return typeof a === "number" ? -1 : 1;
  }
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, at) => {
    const button = made("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    if (at === 0) head.setAttribute("aria-sort", "descending");
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way);
      const sign = way === "ascending" ? 1 : -1;
      body.append(...rows.sort((a, b) => sign * compare(value(a, at), value(b, at))));
    });
  });
  startTables();
  window.addEventListener("beforeprint", () => { root.classList.add("printing"); fitTables(); });
  window.addEventListener("afterprint", () => { root.classList.remove("printing"); releaseTables(); });
}

// The index of runs: a filter above the table, and sorting by its heads. Without this script the whole table is shown.
for (const table of all("table.runs")) {
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

  // Numbers in text are compared as numbers: "2 of 16" comes before "15 of 16".
  const { compare } = new Intl.Collator("en", { numeric: true });
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, at) => {
    const button = made("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    if (at === 0) head.setAttribute("aria-sort", "descending");
    button.addEventListener("click", () => {
      const isUp = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      const text = (row) => row.cells[at].textContent.trim();
      body.append(...rows.sort((a, b) => (isUp ? 1 : -1) * compare(text(a), text(b))));
    });
  });
  startTables();
  window.addEventListener("beforeprint", () => { root.classList.add("printing"); fitTables(); });
  window.addEventListener("afterprint", () => { root.classList.remove("printing"); releaseTables(); });
}

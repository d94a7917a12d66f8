// Tables that are wider than their place are marked on the screen and shrunk on paper.
const isWider = (element, box) => element.scrollWidth > box.clientWidth + 1;

function startTables() {
  const widths = new ResizeObserver((entries) => entries.forEach(({ target }) =>
    target.classList.toggle("wider", isWider(target, target))));
  all(".scroll").forEach((box) => widths.observe(box));
}

function fitTables() {
  for (const box of all(".scroll").filter(isVisible)) {
    const table = box.firstElementChild;
    if (table && isWider(table, box)) table.style.zoom = (box.clientWidth / table.scrollWidth).toFixed(3);
  }
}

function releaseTables() {
  all(".scroll > *").forEach((table) => { table.style.zoom = ""; });
}

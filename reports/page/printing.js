// Before printing: every chart that is not folded away, at the paper's width and in light colours.
function beginPrint() {
  closeMenus();
  root.classList.add("printing");
  version += 1;
  drawVisible();
  for (const box of all(".scroll").filter(isVisible)) {
    const table = box.firstElementChild;
    if (table && table.scrollWidth > box.clientWidth + 1) table.style.zoom = (box.clientWidth / table.scrollWidth).toFixed(3);
  }
}

function endPrint() {
  root.classList.remove("printing");
  all(".scroll > *").forEach((table) => { table.style.zoom = ""; });
  redraw();
}

function startPrinting() {
  window.addEventListener("beforeprint", beginPrint);
  window.addEventListener("afterprint", endPrint);
}

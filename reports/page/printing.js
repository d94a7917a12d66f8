// Before printing: every chart that is not folded away, at the paper's width and in light colours.
function beginPrint() {
  closeMenus();
  root.classList.add("printing");
  version += 1;
  drawVisible();
  fitTables();
}

function endPrint() {
  root.classList.remove("printing");
  releaseTables();
  redraw();
}

function startPrinting() {
  window.addEventListener("beforeprint", beginPrint);
  window.addEventListener("afterprint", endPrint);
}

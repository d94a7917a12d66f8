// Before printing, draws every visible chart at the paper's width and in light colours, and adds a line on the filters.
function beginPrint() {
  beginCharts();
  root.classList.add("printing");
  const said = document.getElementById("shown")?.textContent;
  if (said) document.getElementById("main").prepend(made("p", { className: "of-all printed" }, said));
  version += 1;
  drawNow(places);
  fitTables();
}

function endPrint() {
  root.classList.remove("printing");
  all(".printed").forEach((each) => each.remove());
  releaseTables();
  redraw();
}

function startPrinting() {
  window.addEventListener("beforeprint", beginPrint);
  window.addEventListener("afterprint", endPrint);
}

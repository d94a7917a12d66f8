// Begins what stands above. The text is there already; charts come last.

// One part that fails takes no other with it.
function attempt(begin) {
  try {
    begin();
  } catch (error) {
    console.error(`${begin.name}:`, error);
  }
}

function failed(reason) {
  const said = document.getElementById("no-charts");
  said.textContent = `The charts cannot be drawn here (${reason}). Each chart's numbers are in the table below it.`;
  root.classList.add("no-charts");
}

function unpackCharts() {
  if (places.length && !Object.keys(charts).length) Object.assign(charts, JSON.parse(unpacked("charts")));
}

// Charts that are already on the screen are drawn at once.
function startCharts() {
  unpackCharts();
  document.head.append(made("script", { textContent: unpacked("plotly") }));
  isReady = true;
  drawNow(places.filter(isOnScreen));
  watch();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function beginCharts() {
  if (isReady || !places.length || root.classList.contains("no-charts")) return;
  try {
    startCharts();
  } catch (error) {
    failed(error.message);
  }
}

// If a chart is on the screen it is drawn first; else the text is ready first.
async function start() {
  [startLinks, startTables, startPrinting].forEach(attempt);
  if (places.some(isOnScreen)) beginCharts();
  else if (places.length && window.DecompressionStream)
    await Promise.all(["charts", "plotly"].map(unpackSoon)).catch(() => {});
  [unpackCharts, startFilters].forEach(attempt);
  beginCharts();
}

const ready = start();
// For tests and tools: `drawAll` resolves when every visible chart is drawn; `charts` has the charts' data.
window.bench = { ready, drawAll: () => ready.then(() => drawNow(places)), choose, charts };

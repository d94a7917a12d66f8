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

async function unpackCharts() {
  if (!window.DecompressionStream) throw new Error("this browser cannot unpack them");
  Object.assign(charts, JSON.parse(await unpacked("charts")));
}

async function startCharts() {
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  document.head.append(made("script", { textContent: await unpacked("plotly") }));
  isReady = true;
  watch();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

async function start() {
  [startLinks, startTables, startPrinting].forEach(attempt);
  // Filters know from the charts what there is to choose; without charts they are of the tables alone.
  if (places.length) await unpackCharts().catch((error) => failed(error.message));
  attempt(startFilters);
  if (places.length && !root.classList.contains("no-charts")) await startCharts().catch((error) => failed(error.message));
}

const ready = start();
// For tests and tools: `drawAll` resolves when all that is not folded away is drawn, `charts` is what is drawn.
window.bench = { ready, drawAll: () => ready.then(drawVisible), choose, charts };

// Begins what stands above. The text is there already; charts come last.
function failed(reason) {
  const said = document.getElementById("no-charts");
  said.textContent = `The charts cannot be drawn here (${reason}). Each chart's numbers are in the table below it.`;
  root.classList.add("no-charts");
}

async function start() {
  startFilters();
  startLinks();
  startNotes();
  startPrinting();
  if (!places.length) return;
  if (!window.DecompressionStream) return failed("this browser cannot unpack them");
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  try {
    await unpack();
  } catch (error) {
    return failed(error.message);
  }
  isReady = true;
  watch();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

const ready = start();
// For tests and tools: resolves when all that is not folded away is drawn.
window.bench = { ready, drawAll: () => ready.then(drawVisible), choose };

// Draws charts as they come near the screen, and again when what they show has changed.
const near = new Set();
const drawn = new Map(); // by place, the version and the width that it was drawn with
let version = 0;
let isReady = false;
let isPumping = false;
// Shrinks a line chart, so that two of full width fit on a printed page.
const PAPER_HEIGHT = 0.8;
const isPrinting = () => root.classList.contains("printing");

function draw(place) {
  const chart = view(charts[place.dataset.chart], place.closest("figure")?.dataset);
  const style = getComputedStyle(root);
  const width = place.clientWidth;
  const shape = layout(resolved(chart.layout, style), style);
  const room = roomFor(chart, width, shape.font.family);
  const own = shape.annotations || [];
  const height = isPrinting() && chart.names_ends ? Math.round(shape.height * PAPER_HEIGHT) : shape.height;
  const config = { displayModeBar: false, responsive: false, scrollZoom: false, showTips: false, doubleClick: false };
  const margin = { ...shape.margin, r: Math.max(shape.margin.r ?? 12, room) };
  Plotly.react(place, resolved(chart.traces, style), { ...shape, width, height, margin, annotations: own }, config);
  if (room) Plotly.relayout(place, { annotations: [...own, ...endNames(place, chart, style)] });
  drawn.set(place, { version, width });
}

function isDue(place) {
  const last = drawn.get(place);
  return isVisible(place) && (!last || last.version !== version || Math.abs(last.width - place.clientWidth) > 1);
}

// Draws one chart at a time, so that the page stays responsive.
function pump() {
  if (isPumping || !isReady) return;
  const next = [...near].find(isDue);
  if (!next) return;
  isPumping = true;
  setTimeout(() => {
    isPumping = false;
    if (isDue(next)) draw(next);
    pump();
  });
}

function redraw() {
  version += 1;
  pump();
}

// Draws at once those of `some` that are visible.
function drawNow(some) {
  if (isReady) some.filter(isDue).forEach(draw);
}

const isOnScreen = (place) => {
  const { top, bottom } = place.getBoundingClientRect();
  return isVisible(place) && bottom > 0 && top < window.innerHeight;
};

function watch() {
  const seen = (entries) => {
    for (const { target, isIntersecting } of entries) near[isIntersecting ? "add" : "delete"](target);
    pump();
  };
  const screens = new IntersectionObserver(seen, { rootMargin: "800px 0px" });
  // Charts on the screen are redrawn at once, before the browser shows them cut off.
  const resized = () => {
    drawNow(places.filter((place) => drawn.has(place) && isOnScreen(place)));
    pump();
  };
  const sizes = new ResizeObserver(() => isPrinting() || resized());
  for (const place of places) {
    screens.observe(place);
    sizes.observe(place);
  }
}

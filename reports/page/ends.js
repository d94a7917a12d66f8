// Writes each line's deployment where the line ends.
const ROOM_PX = 520;
const APART_PX = 17;
// The most width that a name gets in a chart of this width.
const widest = (width) => Math.max(170, 0.22 * width);
const INSIDE_PX = 60;

const ink = document.createElement("canvas").getContext("2d");
function fitted(name, width) {
  if (ink.measureText(name).width <= width) return name;
  let kept = name;
  while (kept && ink.measureText(`${kept}…`).width > width) kept = kept.slice(0, -1);
  return `${kept}…`;
}

const unescaped = (text) => new DOMParser().parseFromString(text, "text/html").body.textContent;
const escaped = (text) => text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);

// One per deployment: the trace of its line, and its name.
function lines(chart) {
  const found = new Map();
  for (const trace of chart.traces) {
    const name = trace.meta?.of?.deployment ?? unescaped(trace.name ?? "");
    const isLine = (trace.mode || "").includes("lines") && (trace.fill || "none") === "none" && trace.line && trace.line.width !== 0;
    if (name && isLine && trace.y?.some((y) => y !== null)) found.set(name, trace);
  }
  return found;
}

// The width to keep for names at the right of the plot; 0 if they are not written.
function roomFor(chart, width, family) {
  if (!chart.names_ends || width < ROOM_PX) return 0;
  ink.font = `600 12px ${family}`;
  const widths = [...lines(chart).keys()].map((name) => ink.measureText(name).width);
  return widths.length ? Math.min(Math.max(...widths), widest(width)) + 22 : 0;
}

// Heights within the plot, at least APART_PX apart and otherwise as near to the wanted ones as possible.
function spaced(wanted, height) {
  const order = wanted.map((y, at) => ({ y, at })).sort((a, b) => a.y - b.y);
  const groups = [];
  for (const item of order) {
    groups.push({ items: [item], middle: item.y });
    while (groups.length > 1) {
      const [before, last] = groups.slice(-2);
      const reach = ((before.items.length + last.items.length) / 2) * APART_PX;
      if (last.middle - before.middle >= reach) break;
      const items = [...before.items, ...last.items];
      const middle = items.reduce((sum, each) => sum + each.y, 0) / items.length;
      groups.splice(-2, 2, { items, middle });
    }
    const last = groups[groups.length - 1];
    const half = ((last.items.length - 1) / 2) * APART_PX;
    last.middle = Math.min(Math.max(last.middle, half), height - half);
  }
  const found = new Array(wanted.length);
  for (const { items, middle } of groups)
    items.forEach((item, at) => { found[item.at] = middle + (at - (items.length - 1) / 2) * APART_PX; });
  return found;
}

// Annotations for a chart that is drawn: at the last point of each line, with a leader where it was moved far.
function endNames(place, chart, style) {
  const { xaxis, yaxis, _size: size } = place._fullLayout;
  const ground = style.getPropertyValue("--card").trim();
  const text = style.getPropertyValue("--fg").trim();
  const ends = [...lines(chart)].map(([name, trace]) => {
    const known = trace.y.map((_, at) => at).filter((at) => trace.y[at] !== null);
    const last = known.reduce((best, at) => (xaxis.d2p(trace.x[at]) >= xaxis.d2p(trace.x[best]) ? at : best));
    const y = yaxis.d2p(trace.y[last]);
    // The name of a lone point stands a little above it, off what leads away from it.
    const points = known.map((at) => ({ x: xaxis.d2p(trace.x[at]), y: yaxis.d2p(trace.y[at]) }));
    return { name, points, x: xaxis.d2p(trace.x[last]), y, wanted: known.length > 1 ? y : y - 10,
      colour: resolved(trace.line.color, style) };
  });
  // Names of lines that end near each other begin below each other, beyond the last of the lines.
  const isNear = (end, other) => Math.abs(other.x - end.x) < 60 && Math.abs(other.y - end.y) < 3 * APART_PX;
  // Where another line goes on through its place, a name stands at the side, without a leader.
  const isPassed = (end) => end.points.length > 1 && ends.some((other) => other.points.some(({ x, y }) =>
    x > end.x + INSIDE_PX / 2 && Math.abs(y - end.y) < 2 * APART_PX));
  const reach = (end) => Math.max(...ends.filter((other) => isNear(end, other)).map(({ x }) => x));
  const heights = spaced(ends.map((end) => end.wanted), size.h);
  return ends.map((end, at) => {
    const shown = fitted(end.name, widest(place._fullLayout.width));
    // A leader from far inside the plot would look like the line going on. Names near each other stand in one column.
    const isInside = !isPassed(end) && ends.every((other) => !isNear(end, other) || size.w - other.x > INSIDE_PX);
    const isMoved = Math.abs(heights[at] - end.wanted) > 4 || (!isInside && size.w - end.x > 14);
    return { text: `<b>${escaped(shown)}</b>`, hovertext: escaped(end.name), captureevents: false,
      x: Math.min(end.x / size.w, 1), y: 1 - end.y / size.h, xref: "paper", yref: "paper",
      xanchor: "left", yanchor: "middle", align: "left", showarrow: true, arrowhead: 0, arrowwidth: 1,
      arrowcolor: isMoved && !isPassed(end) ? end.colour : "rgba(0,0,0,0)", standoff: 6,
      ax: isInside ? reach(end) - end.x + 14 : size.w - Math.min(end.x, size.w) + 14, ay: heights[at] - end.y,
      font: { size: 12, color: legible(end.colour, ground, text) } };
  });
}

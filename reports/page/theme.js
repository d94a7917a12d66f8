// Colours come as names of style variables, so that one chart serves both themes.
function resolved(value, style) {
  if (typeof value === "string") return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
  if (Array.isArray(value)) return value.map((item) => resolved(item, style));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item, style)]));
}

// A chart's own layout, on top of what all charts have in common.
function layout(own, style) {
  const colour = (name) => style.getPropertyValue(name).trim();
  const family = getComputedStyle(document.body).fontFamily;
  const axis = (given, more) => ({ automargin: true, gridcolor: colour("--line"), linecolor: colour("--line"),
    zerolinecolor: colour("--line"), exponentformat: "none", separatethousands: true, fixedrange: true,
    tickfont: { color: colour("--mut"), size: 11.5 }, ...more, ...given,
    title: { standoff: 8, font: { color: colour("--mut"), size: 12.5 }, ...(given || {}).title } });
  const axes = Object.keys(own).filter((key) => /^[xy]axis\d*$/.test(key));
  return { showlegend: false, margin: { l: 8, r: 12, t: 10, b: 8 }, autosize: true, separators: ".,",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", dragmode: false,
    font: { family, color: colour("--fg"), size: 12 },
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--mut"), align: "left", namelength: -1,
      font: { family, color: colour("--fg"), size: 12.5 } },
    ...own, ...Object.fromEntries([...new Set(["xaxis", "yaxis", ...axes])].map((key) => [key, axis(own[key])])) };
}

function channels(colour) {
  const canvas = made("canvas", { width: 1, height: 1 }).getContext("2d");
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

function luminance(rgb) {
  const linear = rgb.map((part) => part / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

// The colour, moved towards the text colour until words in it are readable (WCAG AA: contrast of 4.5 to 1).
const readable = new Map();
function legible(colour, ground, text) {
  const key = [colour, ground, text].join();
  if (!readable.has(key)) {
    const [from, on, to] = [colour, ground, text].map(channels);
    let rgb = from;
    for (let share = 0; share <= 1 && contrast(rgb, on) < 4.6; share += 0.05)
      rgb = from.map((part, at) => Math.round(part + share * (to[at] - part)));
    readable.set(key, `rgb(${rgb.join()})`);
  }
  return readable.get(key);
}

// The charts of a page as pictures that stand alone: title above, note below, names for the colours. `pictures` (packed) has
// the format, width and scale of all, and of each chart its id and words. The page's text becomes
// a list of what was made, SVGs or PNGs in base64, or what went wrong; it counts as loaded only then.
const PAD = 16, LINE = 1.4;

function svgElement(name, given, ...content) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(given)) element.setAttribute(key, value);
  element.append(...content);
  return element;
}

// Breaks a text into lines that fit; a word that is longer than a line is split.
function broken(text, { size, weight, family, width }) {
  ink.font = `${weight} ${size}px ${family}`;
  const fits = (line) => ink.measureText(line).width <= width;
  const found = [""];
  for (let word of text.split(/\s+/).filter(Boolean)) {
    const longer = `${found.at(-1)} ${word}`.trim();
    if (fits(longer)) { found[found.length - 1] = longer; continue; }
    for (found.push(""); !fits(word); found.push("")) {
      let cut = word.length - 1;
      while (cut > 1 && !fits(word.slice(0, cut))) cut -= 1;
      found[found.length - 1] = word.slice(0, cut);
      word = word.slice(cut);
    }
    found[found.length - 1] = word;
  }
  return found.filter(Boolean);
}

// The traces for a key above the plot, if some line's name does not fit where the line ends; names already written are left out.
function keyOf(place, title) {
  const own = charts[place.dataset.chart].layout.annotations || [];
  const ends = (place.layout.annotations || []).slice(own.length);
  if (ends.length && !ends.some((each) => each.text.includes("…"))) return [];
  const written = own.map((each) => each.text || "").join("\n");
  const ticks = place.data.flatMap((trace) => (Array.isArray(trace.y) ? trace.y : []));
  const isNamed = (trace) => trace.name && !written.includes(trace.name) && !ticks.includes(trace.name) &&
    trace.type !== "heatmap" && (trace.fill || "none") === "none" && trace.showlegend !== false;
  const named = new Map(place.data.filter(isNamed).reverse().map((trace) => [trace.name, trace]));
  return [...named.keys()].every((name) => title.includes(name)) ? [] : place.data.filter((trace) => named.get(trace.name) === trace);
}

async function picture(chart, { format, width, scale }) {
  const place = places.find((each) => each.dataset.chart === chart.id);
  if (!place?.data) throw new Error("the page did not draw it");
  const style = getComputedStyle(root), family = getComputedStyle(document.body).fontFamily, inner = width - 2 * PAD;
  const block = (text, size, weight, colour) => ({ size, weight, fill: style.getPropertyValue(colour).trim(),
    lines: broken(text, { size, weight, family, width: inner }) });
  const above = [block(chart.title, 17, 600, "--fg"), block(chart.quantity, 13, 400, "--mut")];
  const below = [block(chart.note, 12, 400, "--mut"), block(chart.foot, 11, 400, "--mut")];
  const tall = (blocks) => blocks.reduce((sum, { lines, size }) => sum + lines.length * size * LINE + (lines.length && 4), 0);

  const keyed = keyOf(place, chart.title);
  ink.font = `400 12px ${family}`;
  const room = 22 * Math.ceil(keyed.reduce((sum, { name }) => sum + ink.measureText(name).width + 64, 0) / inner);
  const own = charts[chart.id].layout.annotations?.length || 0;
  const bare = { annotations: (place.layout.annotations || []).slice(0, own), margin: { ...place.layout.margin, r: 12 },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom", font: { size: 12 }, traceorder: "normal",
      bgcolor: "rgba(0,0,0,0)", itemwidth: 36 } };
  const top = PAD + tall(above) + 6, rest = top + 8 + tall(below) + PAD;
  const plot = place.layout.height + room;
  const whole = Math.ceil(rest + plot);
  const shape = { ...place.layout, width: inner, height: plot, showlegend: keyed.length > 0, ...(keyed.length ? bare : {}) };
  const data = place.data.map((trace) => ({ ...trace, showlegend: keyed.includes(trace) }));
  const drawn = await Plotly.toImage({ data, layout: shape }, { format: "svg", width: inner, height: plot, imageDataOnly: true });
  // A character that XML does not allow would make the whole file unreadable.
  const clean = drawn.replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "\ufffd");
  const nested = document.importNode(new DOMParser().parseFromString(clean, "image/svg+xml").documentElement, true);
  if (nested.nodeName !== "svg") throw new Error("its SVG is not well-formed");

  const svg = svgElement("svg", { width, height: whole, viewBox: `0 0 ${width} ${whole}`, role: "img", "font-family": family },
    svgElement("title", {}, chart.title), svgElement("desc", {}, chart.note),
    svgElement("rect", { width: "100%", height: "100%", fill: style.getPropertyValue("--card").trim() }),
    svgElement("g", { transform: `translate(${PAD} ${top})` }, nested));
  for (const [blocks, from] of [[above, PAD], [below, top + plot + 8]]) {
    let y = from;
    for (const { lines, size, weight, fill } of blocks) {
      for (const line of lines) {
        svg.append(svgElement("text", { x: PAD, y: (y + size).toFixed(1), fill, "font-size": size, "font-weight": weight }, line));
        y += size * LINE;
      }
      y += lines.length && 4;
    }
  }
  const text = new XMLSerializer().serializeToString(svg);
  if (format === "svg") return text;
  const image = made("img", { src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}` });
  await image.decode();
  const canvas = made("canvas", { width: width * scale, height: whole * scale });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/png").split(",")[1];
}

async function pictures() {
  await window.bench.drawAll();
  const wanted = JSON.parse(unpacked("pictures")), found = [];
  for (const chart of wanted.charts) found.push(await picture(chart, wanted));
  return found;
}

// As long as this document within the page is open, the page does not count as loaded.
const held = document.body.appendChild(made("iframe")).contentDocument;
held.open();
pictures().catch((error) => `${error.message ?? error}`).then((found) => {
  held.close();
  document.body.replaceChildren(made("pre", { textContent: JSON.stringify(found) }));
});

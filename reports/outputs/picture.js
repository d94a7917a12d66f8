// One chart of the page as a picture that stands alone: its title above, its note below, names for its colours.
// `wanted`: id, format, width, height (0: the chart's own), scale, foot. Returns SVG, or a PNG in base64.
async (wanted) => {
  const PAD = 16, LEAST_PLOT_PX = 160;
  const SVG = "http://www.w3.org/2000/svg";
  while (!window.bench) await new Promise((done) => setTimeout(done, 10));
  await window.bench.drawAll();
  const place = document.querySelector(`.chart[data-chart="${CSS.escape(wanted.id)}"]`);
  if (!place || !place.data) throw new Error("the page did not draw it");
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const family = getComputedStyle(document.body).fontFamily;
  const inner = wanted.width - 2 * PAD;
  const ink = document.createElement("canvas").getContext("2d");

  // Its words, broken where they reach the edge.
  function lines(text, size, weight) {
    ink.font = `${weight} ${size}px ${family}`;
    const fits = (line) => ink.measureText(line).width <= inner;
    const found = [];
    let line = "";
    for (const word of text.split(/\s+/).filter(Boolean)) {
      if (fits(line ? `${line} ${word}` : word)) { line = line ? `${line} ${word}` : word; continue; }
      if (line) found.push(line);
      line = word;
      while (!fits(line)) {
        let cut = line.length - 1;
        while (cut > 1 && !fits(line.slice(0, cut))) cut -= 1;
        found.push(line.slice(0, cut));
        line = line.slice(cut);
      }
    }
    return line ? [...found, line] : found;
  }

  function element(name, given, ...content) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
    made.append(...content);
    return made;
  }

  const block = (text, size, weight, ink_) => ({ size, weight, ink: ink_, lines: lines(text, size, weight) });
  const title = wanted.title, note = wanted.note;
  const above = [block(title, 17, 600, "--fg"), block(wanted.quantity, 13, 400, "--mut")];
  const below = [block(note, 12, 400, "--mut"), block(wanted.foot, 11, 400, "--mut")];
  const tall = (blocks) => blocks.reduce((sum, each) => sum + each.lines.length * each.size * 1.4 +
    (each.lines.length ? 4 : 0), 0);

  // Names stand where lines end, or, if one has no room there, in a key above the plot.
  const chart = window.bench.charts[wanted.id];
  const own = chart.layout.annotations || [];
  const ends = (place.layout.annotations || []).slice(own.length);
  const areWhole = ends.length > 0 && !ends.some((each) => each.text.includes("…"));
  const written = own.map((each) => each.text || "").join("\n");
  const ticks = place.data.flatMap((trace) => (Array.isArray(trace.y) ? trace.y : [])).filter((y) => typeof y === "string");
  const isLine = (trace) => (trace.fill || "none") === "none" && trace.showlegend !== false;
  const keyed = new Map();
  for (const trace of place.data) {
    const isPlain = trace.name && !written.includes(trace.name) && !ticks.includes(trace.name);
    if (isPlain && trace.type !== "heatmap" && isLine(trace) && !keyed.has(trace.name)) keyed.set(trace.name, trace);
  }
  const hasKey = !areWhole && keyed.size > 0 && ![...keyed.keys()].every((name) => title.includes(name));
  const data = place.data.map((trace) => ({ ...trace, showlegend: hasKey && keyed.get(trace.name) === trace }));
  const legend = { orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom", font: { size: 12 },
    traceorder: "normal", bgcolor: "rgba(0,0,0,0)", itemwidth: 36 };
  const bare = { annotations: (place.layout.annotations || []).slice(0, own.length),
    margin: { ...place.layout.margin, r: 12 }, legend };
  const layout = { ...place.layout, width: inner, showlegend: hasKey, ...(hasKey ? bare : {}) };

  const top = PAD + tall(above) + 6;
  const rest = top + 8 + tall(below) + PAD;
  const room = hasKey ? 22 * Math.ceil([...keyed.keys()].reduce((sum, name) => {
    ink.font = `400 12px ${family}`;
    return sum + ink.measureText(name).width + 64;
  }, 0) / inner) : 0;
  const height = wanted.height ? Math.max(wanted.height - rest, LEAST_PLOT_PX + room) : place.layout.height + room;
  const drawn = await Plotly.toImage({ data, layout: { ...layout, height } },
    { format: "svg", width: inner, height, imageDataOnly: true });
  // What XML cannot hold would make the whole unreadable.
  const clean = drawn.replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "\ufffd");
  const parsed = new DOMParser().parseFromString(clean, "image/svg+xml").documentElement;
  if (parsed.nodeName !== "svg") throw new Error("its SVG is not well-formed");

  const whole = Math.ceil(rest + height);
  const svg = element("svg", { width: wanted.width, height: whole, viewBox: `0 0 ${wanted.width} ${whole}`,
    role: "img", "font-family": family }, element("title", {}, title), element("desc", {}, note));
  svg.append(element("rect", { width: "100%", height: "100%", fill: colour("--card") }));
  function write(blocks, from) {
    let y = from;
    for (const each of blocks) {
      for (const line of each.lines) {
        svg.append(element("text", { x: PAD, y: (y + each.size).toFixed(1), fill: colour(each.ink),
          "font-size": each.size, "font-weight": each.weight }, line));
        y += each.size * 1.4;
      }
      if (each.lines.length) y += 4;
    }
  }
  write(above, PAD);
  const nested = document.importNode(parsed, true);
  nested.setAttribute("x", PAD);
  nested.setAttribute("y", top);
  svg.append(nested);
  write(below, top + height + 8);
  const text = new XMLSerializer().serializeToString(svg);
  if (wanted.format === "svg") return text;

  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [wanted.width * wanted.scale, whole * wanted.scale];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/png").split(",")[1];
}

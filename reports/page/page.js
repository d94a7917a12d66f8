"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // Colours come as names of style variables, so that one chart serves both themes.
  function resolved(value, style) {
    if (typeof value === "string") return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return value.map((item) => resolved(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item, style)]));
  }

  function layout(own, style) {
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { automargin: true, gridcolor: colour("--line"), linecolor: colour("--line"), exponentformat: "none", separatethousands: true,
      zerolinecolor: colour("--line"), exponentformat: "none", separatethousands: true, tickfont: { color: colour("--mut"), size: 11.5 } };
    const titled = (given) => ({ ...axis, ...given,
      title: { standoff: 8, font: { color: colour("--mut"), size: 12.5 }, ...(given || {}).title } });
    return { showlegend: false, margin: { l: 8, r: 12, t: 10, b: 8 }, autosize: true, separators: ".,",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
      font: { family: "Inter, system-ui, sans-serif", color: colour("--fg"), size: 12 },
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--fg") } },
      ...own, xaxis: titled(own.xaxis), yaxis: titled(own.yaxis) };
  }

  const drawn = new Set();
  function draw(place) {
    const chart = charts[place.dataset.chart];
    const style = getComputedStyle(document.documentElement);
    const config = { displayModeBar: false, responsive: true, scrollZoom: false, showTips: false };
    // A tap or a wheel on a chart scrolls the page: no zoom by dragging.
    const shape = { dragmode: false, ...layout(resolved(chart.layout, style), style) };
    Plotly.react(place, resolved(chart.traces, style), shape, config);
    place.style.minHeight = "";
    drawn.add(place);
  }

  for (const place of document.querySelectorAll(".chart")) {
    const box = place.closest("details");
    if (box === null || box.open) draw(place);
    else box.addEventListener("toggle", () => drawn.has(place) || draw(place));
  }
  dark.addEventListener("change", () => drawn.forEach(draw));
})();

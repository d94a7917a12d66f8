// The timeline of the cell that the reader chooses. reports/sections/timeline.py gives each cell's data; what is
// drawn of it goes among the page's charts, with names of style variables as colours.
function startTimeline({ phases, cells }) {
  const LANE_PX = { most: 26, least: 7, all: 460 }, PANEL_PX = 96, GAP_PX = 30, AROUND_PX = 54, POINTER_PX = 24;
  const DASHES = { solid: "solid", dotted: "dot" };
  const at = (id) => document.getElementById(id);
  const choice = at("timeline-cell");
  const place = document.querySelector('[data-chart="timeline"]');
  const figure = place.closest("figure");
  const box = at("timeline-table").closest("details");

  // Numbers in words; instants are in ms since the window began, null where a request did not come so far.
  const counted = (value) => (value === null ? "–" : value.toLocaleString("en"));
  const fixed = (value, digits) => (value === null ? "–"
    : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  const seconds = (ms) => (ms === null ? null : ms / 1000);
  const largest = (values) => values.reduce((most, value) => Math.max(most, value), 0);
  const instant = (ms) => fixed(seconds(ms), 3);

  // A row of the columns.
  function requestOf(cell, row) {
    const given = Object.fromEntries(Object.entries(cell.requests).map(([name, values]) => [name, values[row]]));
    const sent = given.wait === null ? null : given.due + given.wait;
    const first = given.prefill === null ? null : sent + given.prefill;
    const ttft = first === null ? null : first - (cell.from_due ? given.due : sent);
    return { ...given, sent, first, ttft, isOk: given.outcome === "ok", lane_name: cell.users[given.lane] ?? given.lane + 1 };
  }

  function hover(cell, request) {
    const { input_tokens: input, cached_tokens: cached, output_tokens: output } = request;
    return [`<b>request ${counted(request.number)}</b>, ${cell.lane} ${request.lane_name}`,
      `conversation ${counted(request.conversation)}, turn ${request.turn + 1}`,
      `due ${instant(request.due)} s, sent ${instant(request.sent)} s`,
      `first token ${instant(request.first)} s, end ${instant(request.end)} s`,
      `TTFT ${fixed(request.ttft, 1)} ms`,
      `${counted(input)} tokens in${cached === null ? "" : ` (${counted(cached)} cached)`}, ${counted(output)} out`,
      request.outcome].join("<br>");
  }

  // Bars from one instant of each request to another.
  function bars(cell, phase, requests, from, to) {
    return { type: "bar", orientation: "h", name: phase.name, width: 0.82,
      y: requests.map((r) => r.lane), base: requests.map((r) => seconds(from(r))),
      x: requests.map((r) => seconds(to(r) - from(r))), customdata: requests.map((r) => hover(cell, r)),
      marker: { color: phase.colour, line: { width: 0 },
        pattern: { shape: phase.pattern, fillmode: "overlay", fgcolor: "--card", size: 5, solidity: 0.25 } },
      hovertemplate: "%{customdata}<extra></extra>" };
  }

  function phasesOf(cell, requests) {
    const [due, sent, decoding, failed] = phases;
    const withToken = requests.filter((r) => r.first !== null);
    const bad = requests.filter((r) => !r.isOk);
    return [
      bars(cell, due, requests.filter((r) => r.sent !== null), (r) => r.due, (r) => r.sent),
      bars(cell, sent, withToken, (r) => r.sent, (r) => r.first),
      bars(cell, decoding, withToken, (r) => r.first, (r) => r.end),
      bars(cell, failed, bad.filter((r) => r.first === null), (r) => r.sent ?? r.due, (r) => r.end),
      { type: "scatter", mode: "markers", x: bad.map((r) => seconds(r.end)), y: bad.map((r) => r.lane),
        customdata: bad.map((r) => hover(cell, r)), hovertemplate: "%{customdata}<extra></extra>",
        marker: { symbol: "x-thin", size: 9, line: { color: failed.colour, width: 2.5 } } },
    ];
  }

  function course({ x, y }, yaxis, more) {
    return { type: "scatter", mode: "lines", x: x.map(seconds), y, yaxis, ...more };
  }

  function coursesOf(cell) {
    const queue = cell.queue.map((each, k) => course(each, "y2", {
      line: { color: cell.colour, dash: Object.values(DASHES)[k], width: 2, shape: "hv" },
      hovertemplate: `%{x:.2f} s: %{y:,.0f} ${each.name}<extra></extra>` }));
    if (!cell.memory) return queue;
    const line = { color: cell.colour, width: 2 };
    return [...queue, course(cell.memory, "y3", { line, hovertemplate: "%{x:.2f} s: %{y:,.2f} GiB<extra></extra>" })];
  }

  // Shares of the height, from top to bottom.
  function domainsOf(heights, inner) {
    let top = 1;
    return heights.map((px) => {
      const domain = [Math.max(top - px / inner, 0), top];
      top = domain[0] - GAP_PX / inner;
      return domain;
    });
  }

  const heading = (domain, text) => ({ xref: "paper", x: 0, xanchor: "left", yref: "paper", y: domain[1], yanchor: "bottom",
    showarrow: false, text, font: { color: "--mut", size: 12 } });

  // Its words stand above the lanes, so that they cover no request.
  const pointer = (request, lanePx, [from, to]) => ({ x: seconds(request.first), y: request.lane, xref: "x", yref: "y",
    xanchor: request.first > (from + to) / 2 ? "right" : "left",
    text: `slowest first token, ${fixed(request.ttft, 1)} ms`, font: { size: 12, color: "--fg" }, showarrow: true, arrowhead: 6,
    arrowsize: 0.8, arrowwidth: 1.5, arrowcolor: "--fg", ax: 0, ay: -((request.lane + 0.6) * lanePx + 14), bgcolor: "--card",
    bordercolor: "--line", borderpad: 2 });

  // Panels on one x axis. A lane has its least height on a small screen too, so that it can be seen.
  function layoutOf(cell, requests) {
    const lanes = largest(cell.requests.lane) + 1;
    const lanePx = Math.min(LANE_PX.most, Math.max(LANE_PX.least, LANE_PX.all / lanes));
    const heights = [Math.max(lanes * lanePx, 60), PANEL_PX, ...(cell.memory ? [PANEL_PX] : [])];
    const inner = heights.reduce((sum, px) => sum + px + GAP_PX, -GAP_PX);
    const [forLanes, forQueue, forMemory] = domainsOf(heights, inner);
    const every = Math.ceil(lanes / 12);
    const ticks = cell.users.map((_, lane) => lane).filter((lane) => lane % every === 0);
    const said = cell.queue.map(({ name }, k) => (cell.queue.length > 1 ? `${name} (${Object.keys(DASHES)[k]})` : name));
    const upTo = (lists) => [0, 1.12 * Math.max(1e-9, largest(lists.flat()))];
    const slowest = requests.find((request) => request.number === cell.slowest);
    return {
      height: inner + AROUND_PX + (slowest ? POINTER_PX : 0),
      margin: { l: 52, r: 10, t: 8 + (slowest ? POINTER_PX : 0), b: AROUND_PX - 8 }, barmode: "overlay", bargap: 0,
      xaxis: { title: { text: "seconds since the window began" }, range: cell.stretch.map(seconds), anchor: cell.memory ? "y3" : "y2",
        automargin: false, zeroline: false, showspikes: true, spikemode: "across", spikesnap: "cursor", spikethickness: 1,
        spikedash: "solid", spikecolor: "--mut" },
      yaxis: { title: { text: cell.lane }, domain: forLanes, range: [lanes - 0.4, -0.6], showgrid: false, zeroline: false,
        automargin: false, tickvals: ticks, ticktext: ticks.map((lane) => String(cell.users[lane])) },
      yaxis2: { title: { text: "requests" }, domain: forQueue, range: upTo([1, ...cell.queue.map(({ y }) => y)]), nticks: 4, automargin: false },
      ...(cell.memory && { yaxis3: { title: { text: "GiB" }, domain: forMemory, range: upTo([cell.memory.y]), nticks: 4, automargin: false } }),
      annotations: [heading(forQueue, `requests ${said.join(", ")}`), ...(cell.memory ? [heading(forMemory, cell.memory.what)] : []),
        ...(slowest ? [pointer(slowest, heights[0] / lanes, cell.stretch)] : [])],
      shapes: [{ type: "rect", layer: "below", x0: 0, x1: seconds(cell.window_ms), yref: "paper", y0: 0, y1: 1,
        fillcolor: "--shade", line: { width: 0 } }],
    };
  }

  function tableOf(cell, requests) {
    const columns = { request: (r) => counted(r.number), [cell.lane]: (r) => String(r.lane_name), conversation: (r) => counted(r.conversation),
      turn: (r) => String(r.turn + 1), "due s": (r) => instant(r.due), "sent s": (r) => instant(r.sent),
      "first token s": (r) => instant(r.first), "end s": (r) => instant(r.end), "TTFT ms": (r) => fixed(r.ttft, 1),
      "tokens in": (r) => counted(r.input_tokens), cached: (r) => counted(r.cached_tokens), "tokens out": (r) => counted(r.output_tokens),
      outcome: (r) => r.outcome };
    const titles = Object.keys(columns).map((name) => made("th", { scope: "col" }, name));
    const rows = requests.map((request) => made("tr", {}, ...Object.values(columns).map((write, k) =>
      (k ? made("td", {}, write(request)) : made("th", { scope: "row" }, write(request))))));
    return made("table", { className: "plain" }, made("thead", {}, made("tr", {}, ...titles)), made("tbody", {}, ...rows));
  }

  function show() {
    const cell = cells[Number(choice.value)];
    const requests = cell.requests.number.map((_, row) => requestOf(cell, row));
    charts.timeline = { traces: [...phasesOf(cell, requests), ...coursesOf(cell)], layout: layoutOf(cell, requests) };
    Object.assign(figure.dataset, cell.of);
    at("timeline-title").textContent = cell.name;
    at("timeline-quantity").textContent = cell.said;
    place.style.minHeight = `${charts.timeline.layout.height}px`;
    place.setAttribute("aria-label", `${cell.name}: ${cell.said} Data in the table below`);
    at("timeline-table").replaceChildren(...(box.open ? [tableOf(cell, requests)] : []));
    drawn.delete(place);
    pump();
  }

  // The first cell of what the reader's filters leave, unless the chosen one is among them.
  function follow() {
    if (!isOut(cells[Number(choice.value)].of)) return;
    const left = cells.findIndex(({ of }) => !isOut(of));
    if (left < 0) return;
    choice.value = String(left);
    show();
  }

  choice.value = choice.dataset.first;
  for (const each of [choice.parentElement, figure]) each.hidden = false;
  choice.addEventListener("change", show);
  box.addEventListener("toggle", () => box.open && show());
  document.addEventListener("chosen", follow);
  show();
}

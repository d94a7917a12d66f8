// What the reader's choice leaves of a chart. Pure: reads `state`, draws nothing.

// Whether something is about anything else than what was chosen. `of`: a trace's or an element's data.
const isOut = (of) => KEYS.some((key) => state[key] && of && of[key] !== undefined && of[key] !== state[key]);
const isChosen = () => KEYS.some((key) => state[key]);

// Only the points of `keep`, in every list that has one entry per point.
function picked(value, keep, length) {
  if (Array.isArray(value)) return value.length === length ? keep.map((at) => value[at]) : value;
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, picked(item, keep, length)]));
}

// A trace with the values of the one start that was chosen and their n, in which its intervals have no meaning.
function swapped(trace, keep) {
  const values = trace.meta.by_start[state.start] || [];
  const ns = trace.meta.n_by_start[state.start] || [];
  const { error_x, error_y, ...rest } = trace;
  const text = keep.map((at) => `start ${state.start}, n = ${ns[ns.length > 1 ? at : 0]}`);
  return { ...rest, y: keep.map((at) => values[at] ?? null), text };
}

function followed(trace) {
  const { meta = {} } = trace;
  if (isOut(meta.of)) return null;
  const count = (meta.points || []).length;
  const keep = count ? meta.points.map((of, at) => (isOut(of) ? -1 : at)).filter((at) => at >= 0)
    : (trace.y || []).map((_, at) => at);
  if (count && !keep.length) return null;
  const left = count && keep.length < count ? { ...picked(trace, keep, count), meta } : trace;
  if (!state.start || !meta.by_start) return left;
  const own = swapped(left, keep);
  return own.y.every((value) => value === null) ? null : own;
}

// Whether a trace distinguishes starts.
const tellsStarts = ({ meta = {} }) => (meta.of || {}).start !== undefined || "by_start" in meta
  || (meta.points || []).some(({ start }) => start !== undefined);

// The traces to draw, the layout, whether nothing or only a part is left, and whether it shows all starts though one was chosen.
function view(chart, ownOf = {}) {
  if (!isChosen()) return { ...chart, isEmpty: false, isPart: false, isOfAllStarts: false };
  const isGone = ({ meta = {} }) => isOut(meta.of);
  const isChanged = chart.traces.some(({ meta = {} }) =>
    !isOut(meta.of) && ((state.start && "by_start" in meta) || (meta.points || []).some(isOut)));
  const isPart = isChanged || chart.traces.some(isGone);
  const traces = chart.traces.map(followed)
    // A trace about no deployment, such as a front, belongs to the whole.
    .filter((trace) => trace && !(isPart && !trace.meta && trace.name === ""));
  const isEmpty = chart.traces.some((trace) => trace.meta) && !traces.some((trace) => trace.meta);
  const bare = (items) => (items || []).filter((item) => !isGone({ meta: item })).map(({ of, ...rest }) => rest);
  const { annotations, shapes, yaxis } = chart.layout;
  const layout = { ...chart.layout, annotations: bare(annotations), shapes: bare(shapes) };
  // An axis that was fitted to all starts may not hold the values of one start.
  if (isChanged && yaxis && (yaxis.rangemode === "tozero" || yaxis.type === "log"))
    layout.yaxis = { ...yaxis, range: undefined };
  const isOfAllStarts = state.start !== "" && ownOf.start === undefined && !chart.traces.some(tellsStarts);
  return { ...chart, traces, layout, isEmpty, isPart, isOfAllStarts };
}

// What of a chart the reader's choice leaves. Pure: reads `state`, draws nothing.

// Whether something is about something else than what was chosen. `of`: a trace's or an element's data.
const isOut = (of) => KEYS.some((key) => state[key] && of && of[key] !== undefined && of[key] !== state[key]);
const isChosen = () => KEYS.some((key) => state[key]);

// Only the points of `keep`, in every list that has one entry per point.
function picked(value, keep, length) {
  if (Array.isArray(value)) return value.length === length ? keep.map((at) => value[at]) : value;
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, picked(item, keep, length)]));
}

// A trace with the values of the one start or turn that was chosen and their n, in which its intervals have no meaning.
function swapped(trace, key, keep) {
  const values = trace.meta[`by_${key}`][state[key]] || [];
  const ns = trace.meta[`n_by_${key}`][state[key]] || [];
  const said = (at) => `${key} ${state[key]}, n = ${ns[ns.length > 1 ? at : 0]}`;
  const { error_x, error_y, text, ...rest } = trace;
  const y = keep.map((at) => (values[at] === undefined ? null : values[at]));
  const isWritten = (trace.mode || "").includes("text") || trace.type === "bar";
  return { ...rest, y, ...(text !== undefined && !isWritten ? { text: keep.map(said) } : {}) };
}

// Of another deployment than the one that was isolated, and else about what was chosen.
const isOther = (of) => isOut(of) && !isOut({ ...of, deployment: undefined });

function followed(trace, hasBaseline) {
  const { meta = {} } = trace;
  if (hasBaseline && isOther(meta.of)) return { ...trace, opacity: 0.25, hoverinfo: "skip", hovertemplate: null };
  if (isOut(meta.of)) return null;
  const count = (meta.points || []).length;
  const keep = count ? meta.points.map((of, at) => (isOut(of) ? -1 : at)).filter((at) => at >= 0)
    : (trace.y || []).map((_, at) => at);
  if (count && !keep.length) return null;
  let left = count && keep.length < count ? { ...picked(trace, keep, count), meta } : trace;
  for (const key of ["turn", "start"]) {
    if (!state[key] || !meta[`by_${key}`]) continue;
    left = swapped(left, key, keep);
    if (left.y.every((value) => value === null)) return null;
    break;
  }
  return left;
}

const knows = ({ meta = {} }) => "points" in meta || "by_start" in meta || "by_turn" in meta;
const isBand = (trace) => (trace.fill || "none") !== "none" || (trace.line || {}).width === 0;

// Where a turn was chosen, values by turn are drawn, which are of all starts.
const isOfAllStarts = ({ meta = {} }) => state.turn && "by_turn" in meta && "by_start" in meta;

// Whether a trace tells starts (or turns) apart.
const tells = (trace, key) => {
  const { of = {}, points = [], ...swaps } = trace.meta || {};
  return of[key] !== undefined || `by_${key}` in swaps || points.some((point) => point[key] !== undefined);
};

// The traces to draw, the layout, whether nothing or only a part is left, and what it is of all of ("starts", "turns").
function view(chart, ownOf = {}) {
  if (!isChosen()) return { ...chart, isEmpty: false, isPart: false, ofAll: [] };
  const swaps = ["turn", "start"].filter((key) => state[key]);
  const isChanged = chart.traces.some(({ meta = {} }) =>
    !isOut(meta.of) && (swaps.some((key) => `by_${key}` in meta) || (meta.points || []).some(isOut)));
  const isGone = ({ meta = {} }) => isOut(meta.of) && !(chart.has_baseline && isOther(meta.of));
  const traces = chart.traces.map((trace) => followed(trace, chart.has_baseline))
    // A band is of the values that gave way to those of one start, or of points that are no longer there.
    .filter((trace) => trace && !(isChanged && isBand(trace) && !knows(trace)));
  const about = chart.traces.filter((trace) => trace.meta);
  const isEmpty = about.length > 0 && !traces.some((trace) => trace.meta);
  const unaware = (key) => ownOf[key] === undefined && (!chart.traces.some((trace) => tells(trace, key))
    || (key === "start" && chart.traces.some((trace) => !isOut((trace.meta || {}).of) && isOfAllStarts(trace))));
  const bare = (items) => (items || []).filter((item) => !isGone({ meta: item })).map(({ of, ...rest }) =>
    (isOther(of) ? { ...rest, font: { ...rest.font, color: "--mut" } } : rest));
  const { annotations, shapes } = chart.layout;
  const layout = { ...chart.layout, annotations: bare(annotations), shapes: bare(shapes) };
  // A frame that was cut to all starts' values need not hold those of one start or turn.
  const { yaxis } = layout;
  if (isChanged && yaxis && (yaxis.rangemode === "tozero" || yaxis.type === "log"))
    layout.yaxis = { ...yaxis, range: undefined };
  const isPart = isChanged || chart.traces.some(isGone);
  return { ...chart, traces, layout, isEmpty, isPart, ofAll: swaps.filter(unaware).map((key) => `${key}s`) };
}

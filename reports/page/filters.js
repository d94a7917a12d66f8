// The filters and the legend: they show what was chosen, everywhere on the page.
const MARK = "data-filtered";
const selects = all("select[data-filter]");
const keys = all("[data-isolate]");
const filter = (element, isFiltered) => element.toggleAttribute(MARK, isFiltered);
const isFiltered = (element) => element.hasAttribute(MARK);

function choose(changes) {
  Object.assign(state, changes);
  for (const select of selects) {
    select.value = state[select.dataset.filter];
    select.classList.toggle("active", select.value !== "");
  }
  for (const key of keys) key.setAttribute("aria-pressed", String(key.dataset.isolate === state.deployment));
  root.classList.toggle("isolated", state.deployment !== "");
  document.getElementById("reset").disabled = !isChosen();
  apply();
  say();
  redraw();
  writeFilters();
}

// Choose what the address asks for, as far as the page has it.
function readFilters(given) {
  const has = (select, value) => [...select.options].some((option) => option.value === value);
  const asked = selects.map((select) => [select.dataset.filter, given.get(select.dataset.filter) ?? "", select]);
  const changes = Object.fromEntries(asked.map(([key, value, select]) => [key, has(select, value) ? value : ""]));
  if (KEYS.some((key) => (changes[key] ?? "") !== state[key])) choose(changes);
}

function apply() {
  const main = document.getElementById("main");
  all(".of-all", main).forEach((said) => said.remove());
  for (const element of all(KEYS.map((key) => `[data-${key}]`).join(), main)) filter(element, isOut(element.dataset));
  for (const table of all("table", main)) applyToTable(table);
  for (const place of all("[data-at]", main)) tellLoad(place);
  for (const figure of all("figure", main)) applyToFigure(figure);
  for (const box of all("details, .grid, div[data-load], .part", main).reverse()) if (!box.closest("figure")) filter(box, isEmptied([...box.children]));
  for (const heading of all("h3", main)) applyToPart(heading);
  for (const section of all("section", main)) applyToSection(section);
}

// Whether something was hidden and only headings and text are left.
function isEmptied(elements) {
  const content = elements.filter((element) => !element.matches("summary, h2, h3, p, .of-all"));
  return content.length > 0 && content.every(isFiltered);
}

function applyToTable(table) {
  const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
  const heads = [...(table.tHead?.rows[0]?.cells || [])];
  const about = [...heads, ...rows].filter((each) => KEYS.some((key) => each.dataset[key] !== undefined));
  const box = table.closest(".scroll") || table;
  const values = heads.slice(1);
  filter(box, rows.length > 0 && (rows.every(isFiltered) || (values.length > 0 && values.every(isFiltered))));
  // Cells of a hidden column.
  if (about.some((each) => heads.includes(each)))
    for (const row of rows) [...row.cells].forEach((cell, at) => filter(cell, isFiltered(heads[at])));
  const view = box.parentElement;
  if (view.matches("figure > details")) filter(view, isFiltered(box));
  const isOfAllStarts = state.start && !about.some((row) => row.dataset.start !== undefined) && !box.closest("[data-start]");
  if (isOfAllStarts && about.length && !isFiltered(box) && !box.closest("figure")) caption(box);
}

function applyToFigure(figure) {
  const place = figure.querySelector(".chart");
  const chart = place && charts[place.dataset.chart];
  if (!chart) return;
  const left = view(chart, figure.dataset);
  filter(figure, isOut(figure.dataset) || left.isEmpty);
  if (left.isOfAllStarts) caption(place);
  if (chart.quantity) entitle(figure, place, chart, left.isPart);
}

// A finding about the whole may not hold for a part, so a part has the name of what is drawn as its title.
function entitle(figure, place, { title, quantity }, isPart) {
  const said = isPart ? quantity : title;
  figure.querySelector("figcaption").firstChild.data = said;
  filter(figure.querySelector(".quantity"), isPart);
  place.setAttribute("aria-label", `${said}; data in the table below`);
  const { load } = figure.dataset;
  figure.querySelector(".scroll")?.setAttribute("aria-label", load && !said.includes(load) ? `${said}, ${load}` : said);
}

// The answer's table is always of the answer's load.
function tellLoad(place) {
  if (state.load && state.load !== place.dataset.at)
    place.prepend(made("p", { className: "of-all" }, `at ${place.dataset.at}, whatever the filter`));
}

// Says that a chart or a table is over all starts, though one was chosen.
const caption = (element) => element.before(made("p", { className: "of-all" }, "over all starts"));

// A heading with everything below it, up to the next heading or to what is folded after it.
function applyToPart(heading) {
  const part = [];
  const isEnd = (next) => next.matches("h2, h3") || (next.matches("details") && part.some((each) => !each.matches("p, details")));
  for (let next = heading.nextElementSibling; next && !isEnd(next); next = next.nextElementSibling) part.push(next);
  const isGone = isEmptied(part);
  for (const element of [heading, ...part.filter((each) => each.matches("p"))])
    if (isGone || !KEYS.some((key) => element.dataset[key] !== undefined)) filter(element, isGone);
}

function applyToSection(section) {
  const content = [...section.children];
  if (isEmptied(content)) section.append(made("p", { className: "of-all" }, "Nothing in this section matches the filter."));
}

function say() {
  const { deployment, load, start } = state;
  const word = selects.find((select) => select.dataset.filter === "start")?.selectedOptions[0].text;
  const parts = [deployment, load && `at ${load}`, start && word].filter(Boolean);
  const figures = all("figure");
  const left = figures.filter((figure) => !figure.closest(`[${MARK}]`)).length;
  const said = document.getElementById("shown");
  said.textContent = parts.length ? `Showing ${parts.join(", ")}: ${left} of ${figures.length} charts` : "";
}

function startFilters() {
  if (!selects.length) return;
  for (const select of selects)
    select.addEventListener("change", () => choose({ [select.dataset.filter]: select.value }));
  document.getElementById("reset").addEventListener("click", clear);
  for (const key of keys)
    key.addEventListener("click", () =>
      choose({ deployment: state.deployment === key.dataset.isolate ? "" : key.dataset.isolate }));
  // Folded only on a narrow screen.
  const box = document.querySelector(".filters");
  const wide = window.matchMedia("(min-width: 1000px)");
  const fit = () => { box.open = wide.matches; };
  wide.addEventListener("change", fit);
  fit();
  if (location.hash.includes("?")) arrive();
}

const clear = () => choose(Object.fromEntries(KEYS.map((key) => [key, ""])));

// Links to the page's parts: one at each heading and figure, and the bar's mark of where the reader is.
const anchor = (id, name) => made("a", { className: "anchor", href: `#${id}`, ariaLabel: `Link to ${name}` }, "#");

function addAnchors() {
  for (const heading of all("main section[id] > h2, main .part > h3.part"))
    heading.append(anchor(heading.parentElement.id, heading.textContent));
  for (const figure of all("figure[id]")) {
    const title = figure.querySelector("figcaption");
    title?.append(anchor(figure.id, title.textContent));
  }
}

// An address is `#part?load=4+users`: a part of the page, and the filters.
const partOf = (hash) => hash.slice(1).split("?")[0];
const filtersOf = (hash) => new URLSearchParams(hash.split("?")[1] ?? "");

// The element that an address names; null if it names none, as "#%" does.
function partNamed(hash) {
  try {
    return document.getElementById(decodeURIComponent(partOf(hash)));
  } catch {
    return null;
  }
}

// Opens whatever the target is folded into. If the filters leave nothing of it, its section is the target.
function goToTarget() {
  const part = partNamed(location.hash);
  const target = part?.closest(`[${MARK}]`) ? part.closest("section") : part;
  if (!target) return;
  for (let box = target.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  target.scrollIntoView();
  target.focus({ preventScroll: true });
}

// Shows what the address says, so that whoever gets the link, or comes back to it, sees the same.
function arrive() {
  readFilters(filtersOf(location.hash));
  goToTarget();
  writeFilters();
}

function withFilters(hash) {
  const chosen = new URLSearchParams(KEYS.filter((key) => state[key]).map((key) => [key, state[key]])).toString();
  return `#${partOf(hash)}${chosen && `?${chosen}`}`;
}

function writeFilters() {
  const hash = withFilters(location.hash);
  if (hash !== (location.hash || "#")) history.replaceState(null, "", hash === "#" ? location.pathname + location.search : hash);
}

// A link within the page keeps the filters, unless they would hide its target.
function followLink(href) {
  const hash = partNamed(href)?.closest(`[${MARK}]`) ? href : withFilters(href);
  // A link to where the reader already is does not change the address.
  if (hash === location.hash) goToTarget();
  else location.hash = hash;
}

function startLinks() {
  addAnchors();
  window.addEventListener("hashchange", arrive);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    const href = link?.getAttribute("href") ?? "";
    if (!href.startsWith("#") || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    followLink(href);
  });
  const mark = () => requestAnimationFrame(markCurrent);
  window.addEventListener("scroll", mark, { passive: true });
  markCurrent();
  if (location.hash) goToTarget();
}

const bar = document.querySelector(".bar");
const links = all("nav a").map((link) => ({ link, target: document.getElementById(link.hash.slice(1)) }))
  .filter(({ target }) => target);
// The link to the lowest of the parts that began above the reader's place.
function markCurrent() {
  if (!links.length) return;
  const edge = bar.getBoundingClientRect().bottom + 90;
  const tops = links.map(({ target }) => target.getBoundingClientRect().top);
  const here = tops.reduce((best, top, at) => (top <= edge && !(top < tops[best]) ? at : best), -1);
  links.forEach(({ link }, at) => { link.ariaCurrent = at === here ? "location" : null; });
}

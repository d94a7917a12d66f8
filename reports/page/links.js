// Links to the page's parts: one at each heading and figure, the menus, and where the reader is.
function anchor(id, name) {
  const link = made("a", { className: "anchor", href: `#${id}` }, "#");
  link.setAttribute("aria-label", `Link to ${name}`);
  return link;
}

function addAnchors() {
  for (const section of all("main section[id]")) {
    const heading = section.querySelector("h2");
    heading?.append(anchor(section.id, heading.textContent));
  }
  for (const figure of all("figure[id]")) {
    const title = figure.querySelector("figcaption");
    title?.append(anchor(figure.id, title.textContent));
  }
}

// Opens what the target is folded into, and shows it if it was filtered out.
function goToTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let box = target.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  if (target.closest(`[${MARK}]`)) clear();
  target.scrollIntoView();
}

const menus = all("nav details");
const closeMenus = (but) => menus.filter((menu) => menu !== but).forEach((menu) => { menu.open = false; });

function startLinks() {
  addAnchors();
  window.addEventListener("hashchange", goToTarget);
  document.addEventListener("click", ({ target }) => {
    const menu = target.closest("nav details");
    closeMenus(target.closest("a") ? null : menu);
    // A link to where the reader is already changes no address.
    if (location.hash && target.closest("a")?.getAttribute("href") === location.hash) goToTarget();
  });
  document.addEventListener("keydown", ({ key }) => {
    const open = key === "Escape" && menus.find((menu) => menu.open);
    if (!open) return;
    open.open = false;
    open.querySelector("summary").focus();
  });
  const mark = () => requestAnimationFrame(markCurrent);
  window.addEventListener("scroll", mark, { passive: true });
  markCurrent();
  if (location.hash) goToTarget();
}

const links = all("nav a");
function markCurrent() {
  const edge = document.querySelector(".bar")?.getBoundingClientRect().bottom + 90;
  const above = links.filter((link) => document.querySelector(link.hash)?.getBoundingClientRect().top <= edge);
  const isOrdered = (a, b) => document.querySelector(a.hash).getBoundingClientRect().top - document.querySelector(b.hash).getBoundingClientRect().top;
  const here = above.sort(isOrdered).pop();
  for (const link of links) {
    if (link === here) link.setAttribute("aria-current", "location");
    else link.removeAttribute("aria-current");
  }
  for (const menu of menus) menu.classList.toggle("current", here !== undefined && menu.contains(here));
}

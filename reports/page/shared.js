// What the parts of the script share.
const root = document.documentElement;
// What is drawn in each place, by its id; empty until it is unpacked.
const charts = {};
const KEYS = ["deployment", "load", "start"];
// What the reader chose of each; "" for all.
const state = Object.fromEntries(KEYS.map((key) => [key, ""]));
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const places = all(".chart");
// What is folded has boxes in some browsers.
const isVisible = (element) => element.getClientRects().length > 0 && (element.checkVisibility?.() ?? true);

function made(name, given = {}, ...content) {
  const element = Object.assign(document.createElement(name), given);
  element.append(...content);
  return element;
}

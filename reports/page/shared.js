// What the parts of the script share.
const root = document.documentElement;
// The charts' data by id; empty until it is unpacked.
const charts = {};
const KEYS = ["deployment", "load", "start"];
// What the reader chose for each; "" for all.
const state = Object.fromEntries(KEYS.map((key) => [key, ""]));
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const places = all(".chart");
// In some browsers, folded elements still have boxes.
const isVisible = (element) => element.getClientRects().length > 0 && (element.checkVisibility?.() ?? true);

function made(name, given = {}, ...content) {
  const element = Object.assign(document.createElement(name), given);
  element.append(...content);
  return element;
}

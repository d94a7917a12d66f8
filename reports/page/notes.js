// Notes of one line below charts, that open where they are longer.
function isCut(note) {
  return note.scrollWidth > note.clientWidth + 1 || note.scrollHeight > note.clientHeight + 2;
}

function fold(note) {
  if (note.dataset.folds || !isCut(note)) return;
  note.dataset.folds = "yes";
  const more = made("button", { type: "button", className: "more" }, "more");
  more.setAttribute("aria-expanded", "false");
  more.addEventListener("click", () => {
    const isOpen = note.classList.toggle("whole");
    more.setAttribute("aria-expanded", String(isOpen));
    more.textContent = isOpen ? "less" : "more";
  });
  note.after(more);
}

function startNotes() {
  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => target.clientWidth && fold(target)));
  all("figure > .note").forEach((note) => sizes.observe(note));
}

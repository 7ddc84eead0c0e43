// Without scripts all is there too: browsers show a point's title under the mouse.
// A button per table that copies it as CSV.
for (const table of document.querySelectorAll("details.table table")) {
  const button = document.createElement("button");
  button.textContent = "Copy as CSV";
  button.onclick = () => {
    const quoted = (cell) => `"${cell.textContent.replaceAll('"', '""')}"`;
    const line = (row) => [...row.cells].flatMap((c) => [quoted(c), ...Array(c.colSpan - 1).fill("")]).join(",");
    navigator.clipboard.writeText([...table.rows].map(line).join("\n"));
    button.textContent = "Copied";
  };
  table.parentElement.before(button);
}
document.querySelector(".contents").open = matchMedia("(min-width: 1200px)").matches;
// The values of a figure's points: under the mouse or a finger, and by the arrow keys once it has the focus.
const tip = document.createElement("p");
tip.className = "tip";
tip.setAttribute("role", "status");
for (const drawing of document.querySelectorAll(".drawing:has(circle title)")) {
  const rings = [...drawing.querySelectorAll("circle:has(title)")];
  let at = -1;
  const show = (next) => {
    rings[at]?.classList.remove("at");
    at = next;
    if (at < 0) return tip.remove();
    rings[at].classList.add("at");
    tip.textContent = rings[at].dataset.values;
    drawing.append(tip);
    const [ring, box] = [rings[at].getBoundingClientRect(), drawing.getBoundingClientRect()];
    const most = drawing.scrollLeft + box.width - tip.offsetWidth - 2;
    tip.style.left = `${Math.max(0, Math.min(ring.left - box.left + drawing.scrollLeft + 8, most))}px`;
    tip.style.top = `${Math.max(0, ring.top - box.top - tip.offsetHeight - 4)}px`;
  };
  for (const ring of rings) {
    const title = ring.querySelector("title");
    ring.dataset.values = title.textContent;
    title.remove();
    ring.onpointerenter = () => show(rings.indexOf(ring));
  }
  drawing.onpointerleave = drawing.onblur = () => show(-1);
  drawing.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") show(-1);
    if (!step) return;
    event.preventDefault();
    const next = (at + step + rings.length) % rings.length;
    rings[next].scrollIntoView({ block: "nearest", inline: "nearest" });
    show(next);
  };
}

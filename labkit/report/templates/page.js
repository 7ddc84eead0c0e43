// A button per table that copies it as CSV; everything else works without scripts.
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

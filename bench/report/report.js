"use strict";
// Sorting, saving and the theme.  Without this script the page is whole: the buttons are made here.

const INK = "#1b1f24", PAPER = "#ffffff", BLUE = "#0072b2";        // of a saved figure, whatever the theme

function button(text, act, label) {
  const b = document.createElement("button");
  b.type = "button";
  b.textContent = text;
  if (label) b.setAttribute("aria-label", label);
  b.addEventListener("click", act);
  return b;
}

// Tables: a click or Enter on a heading sorts by it; numbers by data-key, words as words, gaps always last.
function keyOf(row, column) {
  const cell = row.cells[column], number = cell.dataset.key;
  return number !== undefined ? Number(number) : cell.classList.contains("n") ? null : cell.textContent.trim() || null;
}

function sortBy(table, column, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending", body = table.tBodies[0];
  const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), undefined, {numeric: true});
  const rows = Array.from(body.rows, (row) => [keyOf(row, column), row]);
  rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : down ? order(b, a) : order(a, b));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table")) {
  Array.from(table.tHead.rows[0].cells).forEach((heading, column) => {
    const title = heading.querySelector(".title");
    const b = button(title.textContent, () => sortBy(table, column, heading));
    b.title = "Sort by " + title.textContent;
    title.replaceChildren(b);
  });
}

// Figures: saved from the page itself, so that one file is enough.
function svgText(figure) {
  const svg = figure.querySelector("svg").cloneNode(true), [, , width, height] = svg.getAttribute("viewBox").split(" ");
  svg.setAttribute("width", width + "pt");
  svg.setAttribute("height", height + "pt");
  const text = new XMLSerializer().serializeToString(svg);
  return text.replaceAll("currentColor", INK).replaceAll("var(--paper)", PAPER).replaceAll("var(--blue)", BLUE);
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function svgBlob(figure) {
  return new Blob([svgText(figure)], {type: "image/svg+xml"});
}

function savePng(figure, name) {
  const image = new Image(), url = URL.createObjectURL(svgBlob(figure));
  image.onload = () => {
    const canvas = document.createElement("canvas"), scale = 3;
    canvas.width = scale * image.width;
    canvas.height = scale * image.height;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(blob, name), "image/png");
    URL.revokeObjectURL(url);
  };
  image.src = url;
}

for (const figure of document.querySelectorAll("figure")) {
  const name = figure.dataset.name, title = figure.querySelector("h3").textContent, row = document.createElement("div");
  row.className = "save";
  row.append(button("Save SVG", () => save(svgBlob(figure), name + ".svg"), "Save SVG of " + title),
             button("Save PNG", () => savePng(figure, name + ".png"), "Save PNG of " + title));
  figure.append(row);
}

// Theme: the system's until the reader chooses; the choice is kept where the browser lets a local file keep anything.
const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
}
const toggle = button("", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("ldt-bench-theme", root.dataset.theme); } catch { /* not allowed here */ }
  label();
});
function label() {
  toggle.textContent = isDark() ? "Light theme" : "Dark theme";
}
toggle.className = "theme";
try { root.dataset.theme = localStorage.getItem("ldt-bench-theme") || ""; } catch { /* not allowed here */ }
if (!root.dataset.theme) delete root.dataset.theme;
dark.addEventListener("change", label);
label();
document.querySelector("header").append(toggle);

// Print: what is folded away belongs on paper, so printing opens it.
let folded = [];
addEventListener("beforeprint", () => {
  folded = Array.from(document.querySelectorAll("details:not([open])"));
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});

// The explore page.  These files are joined, in the order of `SCRIPT_PARTS` in page.py, into one module.
// Every string of a record reaches the page as text: textContent, a DataTables text renderer, or esc().
"use strict";

const $ = (id) => document.getElementById(id);

function esc(text) { return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); }   // for plotly's labels

function make(tag, text, kind) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => { const o = make("option", text); o.value = value; return o; }));
  if (chosen !== undefined && options.some(([value]) => value === chosen)) select.value = chosen;
}

function digits(x) {
  if (x === null || x === undefined || !isFinite(x)) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e15 || size < 1e-4) return x.toExponential(2);
  return x.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 4 : 3 });
}

function seconds(s) {
  if (s === null || s === undefined) return "–";
  const steps = [["µs", 1e6, 1e-3], ["ms", 1e3, 1], ["s", 1, 600], ["min", 1 / 60, 36000], ["h", 1 / 3600, 864000], ["days", 1 / 86400, Infinity]];
  const [unit, factor] = steps.find(([, , below]) => s < below);
  return `${digits(s * factor)} ${unit}`;
}

function dollars(x) {
  if (!isFinite(x)) return "–";
  if (x < 0.1) return `$${digits(x)}`;
  const cents = x < 100 ? 2 : 0;
  return `$${x.toLocaleString("en", { minimumFractionDigits: cents, maximumFractionDigits: cents })}`;
}

const ends = (q, format) => `${format(q.low)} to ${format(q.high)}`;

// CSV of what is shown.  A spreadsheet takes a text that begins with one of these for a formula.
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

function csv(rows) { return rows.map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n"; }

function save(text, name) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// Measured points: a table, and a figure of the rows that it shows.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7fd5"];   // Okabe and Ito's, but two
const SYMBOLS = ["circle", "square", "diamond", "cross", "x", "triangle-up"];
const MOST_GROUPS = 16, ERROR_BARS = 400, MOST_DRAWN = 2000;
const FIGURES = {
  step_s: ["seconds of a denoising step", "step_low_s", "step_high_s"], flops_per_s: ["FLOP/s of a denoising step"],
  minutes: ["minutes of video per hour of the device", "minutes_low", "minutes_high"], step_j: ["joules of a denoising step"],
};
let data, table, plain, shown = [], pending = null, drawn = 0;

// Columns as lists: points with a timed step before those without (a stage alone, or one that failed).
function decode(document) {
  const timed = document.columns.step_s, rows = timed.map((_, i) => i), columns = {};
  const order = [...rows.filter((r) => timed[r] !== null), ...rows.filter((r) => timed[r] === null)];
  for (const [name, c] of Object.entries(document.columns)) columns[name] = order.map((r) => (c.words ? c.words[c.codes[r]] : c[r]));
  return columns;
}

function drawTable(search) {
  const c = plain, n = data.rows;
  const words = (name, title, way = "searchList") => ({ title, name, data: (row) => c[name][row] ?? "", render: DataTable.render.text(),
                                    columnControl: ["order", [way]] });
  const numbers = (name, title, format) => ({ title, name, type: "num", className: "dt-right", columnControl: ["order", ["search"]],
    data: (row, kind) => (kind === "display" ? (c[name][row] === null ? "–" : format(c[name][row])) : c[name][row] ?? -1) });
  const interval = (name, low, high, title, format) => ({ ...numbers(name, title, format),
    data: (row, kind) => (kind !== "display" ? c[name][row] ?? -1 : c[name][row] === null ? "–"
      : `${format(c[name][row])} (${format(c[low][row])} to ${format(c[high][row])})`) });
  table = new DataTable("#points", {
    data: Array.from({ length: n }, (_, i) => i), deferRender: true, pageLength: 25, lengthMenu: [10, 25, 100],
    search: { search }, scrollX: true, autoWidth: false, ordering: { indicators: false, handler: false }, order: [],
    select: { style: "multi", selector: "td:first-child", headerCheckbox: false },
    layout: { topStart: "info", topEnd: "search", bottomStart: "pageLength", bottomEnd: "paging" },
    language: { search: "Search", info: "_START_ to _END_ of _TOTAL_ points", infoFiltered: "(of _MAX_)", infoEmpty: "no points",
                emptyTable: "no measured points", zeroRecords: "no point matches" },
    columns: [
      { title: "Pick", data: null, defaultContent: "", orderable: false, searchable: false, columnControl: [], render: DataTable.render.select(),
        className: "tick" },
      words("model", "Model"), words("workload", "Workload"), words("recipe", "Recipe"), words("gpu", "Device"), words("outcome", "Outcome"),
      numbers("tokens", "Tokens", (x) => x.toLocaleString("en")),
      interval("step_s", "step_low_s", "step_high_s", "Step, measured", seconds), numbers("n", "n", String),
      numbers("flops_per_s", "FLOP/s of a step", digits),
      interval("minutes", "minutes_low", "minutes_high", "Minutes per hour of the device, measured", digits),
      numbers("peak_bytes", "Peak memory, GB", (x) => digits(x / 1e9)), numbers("step_j", "Joules a step", digits),
      words("result", "Result", "search"), words("suite", "Suite"), words("started_utc", "Started", "search"), words("reason", "Reason", "search"),
    ],
  });
  table.on("draw", (_event, settings) => { if (settings.nTable.id === "points") filtered(); });
  table.on("select deselect", compare);
  filtered();
}

function filtered() {
  const rows = table.rows({ search: "applied" }).indexes().toArray();
  const same = rows.length === shown.length && [...rows].sort((a, b) => a - b).every((r, i) => r === shown[i]);
  if (same && $("scatter").data) return;                       // only the page or the order changed
  shown = rows.sort((a, b) => a - b);
  soon();
}

// The figure follows the table by a frame: with many points and no GPU in the browser it takes longer than all the rest.
function soon() {
  clearTimeout(pending);
  pending = setTimeout(() => requestAnimationFrame(() => setTimeout(drawScatter)));
}

function look(extra) {
  const style = getComputedStyle(document.documentElement), v = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: v("--line"), zerolinecolor: v("--line"), linecolor: v("--soft"), automargin: true };
  const layout = { paper_bgcolor: v("--paper"), plot_bgcolor: v("--paper"), font: { color: v("--ink"), size: 12 }, hovermode: "closest",
                   margin: { l: 60, r: 10, t: 10, b: 45 }, ...extra };
  layout.xaxis = { ...axis, ...extra.xaxis };
  layout.yaxis = { ...axis, ...extra.yaxis };
  return layout;
}
const SETTINGS = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"], toImageButtonOptions: { format: "svg" } };

function drawScatter() {
  const name = $("figure").value, by = $("colour").value, [title, low, high] = FIGURES[name];
  const having = shown.filter((r) => plain[name][r] !== null && plain.tokens[r] !== null), groups = new Map();
  const every = Math.ceil(having.length / MOST_DRAWN), rows = having.filter((_, i) => i % every === 0);
  for (const r of rows) { const key = plain[by][r] ?? "–"; groups.has(key) ? groups.get(key).push(r) : groups.set(key, [r]); }
  const sorted = [...groups].sort((a, b) => b[1].length - a[1].length), kept = sorted.slice(0, MOST_GROUPS);
  const rest = sorted.slice(MOST_GROUPS).flatMap(([, r]) => r);
  if (rest.length) kept.push([null, rest]);
  const traces = kept.map(([key, members], i) => ({
    type: "scatter", mode: "markers", name: key === null ? `${sorted.length - MOST_GROUPS} others` : esc(key), showlegend: true,
    x: members.map((r) => plain.tokens[r]), y: members.map((r) => plain[name][r]), customdata: members,
    marker: { color: key === null ? "#888888" : COLOURS[i % COLOURS.length], symbol: SYMBOLS[Math.floor(i / COLOURS.length) % SYMBOLS.length], size: 7 },
    error_y: low && rows.length <= ERROR_BARS ? { type: "data", symmetric: false, thickness: 1, width: 2,
      array: members.map((r) => plain[high][r] - plain[name][r]), arrayminus: members.map((r) => plain[name][r] - plain[low][r]) } : undefined,
    text: members.map((r) => esc(`${plain.model[r]} · ${plain.workload[r]} · ${plain.recipe[r]} · ${plain.gpu[r]}`)),
    hovertemplate: `%{text}<br>%{x:,} tokens, %{y:.4g} (measured)<extra></extra>`,
  }));
  const phone = window.innerWidth < 640;
  Plotly.react("scatter", traces, look({
    xaxis: { type: "log", title: { text: "tokens" }, dtick: 1, exponentformat: "power" },
    yaxis: { type: "log", title: { text: title }, exponentformat: "power" },
    showlegend: !phone, legend: phone ? {} : { font: { size: 11 } } }), SETTINGS);
  const plot = $("scatter");
  if (!plot.listening) {
    plot.listening = true;
    plot.on("plotly_click", (event) => { const row = table.row(event.points[0].customdata); row.selected() ? row.deselect() : row.select(); });
  }
  document.documentElement.dataset.drawn = ++drawn;
  $("drawn").textContent = `${having.length.toLocaleString("en")} of ${shown.length.toLocaleString("en")} points have this figure` +
    (every > 1 ? `; one in ${every} is drawn, narrow the table to see all` : "") +
    (low && rows.length > ERROR_BARS ? `; intervals are drawn for up to ${ERROR_BARS}` : "") + ". Provenance: measured" +
    (name === "flops_per_s" ? " (time), counted (FLOPs)." : ".");
}

// What the table shows, in its order, with every column of the data.
function pointRows() {
  const names = Object.keys(plain), rows = table.rows({ search: "applied", order: "applied" }).indexes().toArray();
  return [names, ...rows.map((r) => names.map((name) => plain[name][r]))];
}

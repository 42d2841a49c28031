// The explore page.  Every string of a record reaches the page as text: textContent, a DataTables text renderer, or esc().
"use strict";

const $ = (id) => document.getElementById(id);
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7fd5"];   // Okabe and Ito's, but two
const SYMBOLS = ["circle", "square", "diamond", "cross", "x", "triangle-up"];
const MOST_GROUPS = 16, MOST_BARS = 12, ERROR_BARS = 400, MOST_COMPARED = 200, MOST_SVG = 1000;
const FIGURES = {
  step_s: ["seconds of a denoising step", "step_low_s", "step_high_s"], flops_per_s: ["FLOP/s of a denoising step"],
  minutes: ["minutes of video per GPU-hour", "minutes_low", "minutes_high"], step_j: ["joules of a denoising step"],
};
let data, table, plain, shown = [], asked = 0, aborter = null, answer = null, timer = null, pending = null, drawn = 0;

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

// Numbers -----------------------------------------------------------------------------------------------------------
function digits(x) {
  if (x === null || x === undefined || !isFinite(x)) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  return size >= 1e6 || size < 1e-3 ? x.toExponential(2) : x.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 4 : 3 });
}
function seconds(s) {
  if (s === null || s === undefined) return "–";
  const [unit, factor] = s < 1e-3 ? ["µs", 1e6] : s < 1 ? ["ms", 1e3] : s < 600 ? ["s", 1] : s < 36000 ? ["min", 1 / 60] : ["h", 1 / 3600];
  return `${digits(s * factor)} ${unit}`;
}
const dollars = (x) => `$${x < 0.1 ? digits(x) : x.toLocaleString("en", { minimumFractionDigits: x < 100 ? 2 : 0, maximumFractionDigits: x < 100 ? 2 : 0 })}`;
const range = (q, format) => `${format(q.low)} to ${format(q.high)} (90 %)`;

// The table ---------------------------------------------------------------------------------------------------------
function decode(document) {
  const columns = {};
  for (const [name, c] of Object.entries(document.columns)) columns[name] = c && c.words ? c.codes.map((code) => c.words[code]) : c;
  return columns;
}

function drawTable() {
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
    scrollX: true, autoWidth: false, ordering: { indicators: false, handler: false }, order: [],
    select: { style: "multi", selector: "td:first-child", headerCheckbox: false },
    layout: { topStart: "info", topEnd: "search", bottomStart: "pageLength", bottomEnd: "paging" },
    language: { search: "Search", info: "_START_ to _END_ of _TOTAL_ points", infoFiltered: "(of _MAX_)", infoEmpty: "no points",
                emptyTable: "no measured points", zeroRecords: "no point matches" },
    columns: [
      { title: "Pick", data: null, defaultContent: "", orderable: false, searchable: false, columnControl: [], render: DataTable.render.select(),
        className: "tick" },
      words("model", "Model"), words("workload", "Workload"), words("recipe", "Recipe"), words("gpu", "GPU"), words("outcome", "Outcome"),
      numbers("tokens", "Tokens", (x) => x.toLocaleString("en")),
      interval("step_s", "step_low_s", "step_high_s", "Step, measured", seconds), numbers("n", "n", String),
      numbers("flops_per_s", "FLOP/s of a step", digits),
      interval("minutes", "minutes_low", "minutes_high", "Minutes per GPU-hour, measured", digits),
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

// Figures -----------------------------------------------------------------------------------------------------------
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

function webgl() { return Boolean(document.createElement("canvas").getContext("webgl")); }

function drawScatter() {
  const name = $("figure").value, by = $("colour").value, [title, low, high] = FIGURES[name];
  const rows = shown.filter((r) => plain[name][r] !== null && plain.tokens[r] !== null), groups = new Map();
  for (const r of rows) { const key = plain[by][r] ?? "–"; groups.has(key) ? groups.get(key).push(r) : groups.set(key, [r]); }
  const sorted = [...groups].sort((a, b) => b[1].length - a[1].length), kept = sorted.slice(0, MOST_GROUPS);
  const rest = sorted.slice(MOST_GROUPS).flatMap(([, r]) => r);
  if (rest.length) kept.push([null, rest]);
  const kind = rows.length > MOST_SVG && webgl() ? "scattergl" : "scatter";
  const traces = kept.map(([key, members], i) => ({
    type: kind, mode: "markers", name: key === null ? `${sorted.length - MOST_GROUPS} others` : esc(key), showlegend: true,
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
  $("drawn").textContent = `${rows.length.toLocaleString("en")} of ${shown.length.toLocaleString("en")} points have this figure` +
    (low && rows.length > ERROR_BARS ? `; intervals are drawn for up to ${ERROR_BARS}` : "") + ". Provenance: measured" +
    (name === "flops_per_s" ? " (time), counted (FLOPs)." : ".");
}

// Compare -----------------------------------------------------------------------------------------------------------
function pairs() {
  const key = (r) => JSON.stringify([plain.model[r], plain.workload[r], plain.recipe[r], plain.guidance[r]]), first = new Map(), out = [];
  for (let r = 0; r < data.rows; r++) if (plain.result[r] === $("a").value && plain.step_s[r] !== null) first.set(key(r), r);
  for (let r = 0; r < data.rows; r++)
    if (plain.result[r] === $("b").value && plain.step_s[r] !== null && first.has(key(r))) out.push([first.get(key(r)), r]);
  return out;
}

function compare() {
  const ticked = table.rows({ selected: true }).indexes().toArray(), both = $("a").value && $("b").value && $("a").value !== $("b").value;
  const compared = both ? pairs() : ticked.slice(1).map((r) => [ticked[0], r]);
  const hint = both ? `${compared.length} points are in both results. \`ldt-bench compare\` weighs noise and drift, and gives a verdict.`
    : ticked.length < 2 ? "Tick two or more rows above, or choose two results." : "Ratios are to the first ticked row.";
  $("compare-hint").textContent = hint + (compared.length > MOST_COMPARED ? ` The first ${MOST_COMPARED} are shown.` : "");
  const label = (r) => `${plain.model[r]} ${plain.workload[r]} ${plain.recipe[r]} ${plain.gpu[r]}`;
  const head = ["Point", both ? "A" : "First", both ? "B" : "This", "Ratio of times", "Intervals", "Minutes per GPU-hour"];
  const rows = compared.slice(0, MOST_COMPARED).map(([a, b]) => {
    const timed = plain.step_s[a] !== null && plain.step_s[b] !== null;
    const apart = timed && (plain.step_low_s[a] > plain.step_high_s[b] || plain.step_low_s[b] > plain.step_high_s[a]);
    return [label(b), seconds(plain.step_s[a]), seconds(plain.step_s[b]), timed ? digits(plain.step_s[b] / plain.step_s[a]) : "–",
            timed ? (apart ? "apart" : "overlap") : "–", digits(plain.minutes[b])];
  });
  const line = (cells, tag) => { const tr = make("tr"); tr.append(...cells.map((t, i) => make(i ? tag : "th", t, i > 0 && i !== 4 ? "n" : ""))); return tr; };
  const thead = make("thead"), tbody = make("tbody");
  thead.append(line(head, "th"));
  tbody.append(...rows.map((cells) => line(cells, "td")));
  $("compared").replaceChildren(...(rows.length ? [thead, tbody] : []));
  const drawn = both ? compared.slice(0, MOST_BARS).map(([, b]) => b) : ticked.slice(0, MOST_BARS);
  if (!rows.length) { Plotly.purge("bars"); $("bars").replaceChildren(); return; }
  const bar = (members, name, colour) => ({
    type: "bar", orientation: "h", name, y: members.map((_, i) => i), x: members.map((r) => plain.step_s[r]), marker: { color: colour },
    error_x: { type: "data", symmetric: false, array: members.map((r) => plain.step_high_s[r] - plain.step_s[r]),
               arrayminus: members.map((r) => plain.step_s[r] - plain.step_low_s[r]) }, hovertemplate: "%{x:.4g} s<extra></extra>" });
  const bars = both ? [bar(compared.slice(0, MOST_BARS).map(([a]) => a), "A", COLOURS[0]), bar(drawn, "B", COLOURS[1])] : [bar(drawn, "", COLOURS[0])];
  const cut = (t) => (t.length > 46 ? `${t.slice(0, 45)}…` : t);
  Plotly.react("bars", bars, look({ height: Math.max(256, 90 + 34 * drawn.length * bars.length), showlegend: both,
    xaxis: { title: { text: "seconds of a denoising step, measured" }, rangemode: "tozero" },
    yaxis: { tickvals: drawn.map((_, i) => i), ticktext: drawn.map((r) => esc(window.innerWidth < 640 ? cut(label(r)).slice(0, 22) : cut(label(r)))), autorange: "reversed" } }), SETTINGS);
}

// What if -----------------------------------------------------------------------------------------------------------
const form = $("ask"), field = (name) => form.elements[name];
const live = () => !data.grid;

function setUp() {
  const { choices, calibrations, grid } = data;
  for (const id of ["a", "b"]) fill($(id), [["", "ticked rows"], ...[...new Set(plain.result)].sort().map((r) => [r, r])]);
  const usable = grid ? calibrations.filter((c) => grid.cells.some((cell) => cell.calibration === c.id)) : calibrations;
  if (!usable.length) { form.hidden = true; $("answer").hidden = true; $("no-calibration").hidden = false; return; }
  const first = usable.filter((c) => c.kind === "gpu" && !c.cards).pop() ?? usable[usable.length - 1];    // own records of a GPU, else what others published
  fill(field("calibration"), usable.map((c) => [c.id, c.cards ? "what others published" : `${c.gpu}: ${c.id}`]), first.id);
  const measured = new Set(plain.model), models = grid ? [...new Set(grid.cells.map((c) => c.model))] : choices.models;
  fill(field("model"), models.map((m) => [m, measured.has(m) ? `${m} (measured here)` : m]), [first.headline_model, "dit-xl-2"].find((m) => models.includes(m)) ?? models[0]);
  const sizes = (grid ? grid.sizes : choices.sizes).map(([w, h]) => [`${w}x${h}`, `${w} × ${h}`]);
  fill(field("size"), live() ? [...sizes, ["", "other …"]] : sizes, "512x512");
  field("demand").value = choices.demand.minutes_per_day;
  field("utilisation").value = choices.demand.utilisation;
  field("peak").value = choices.demand.peak_over_mean;
  field("candidates").value = choices.demand.candidates_per_upload;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => changed(event.target.name));
  changed("calibration");
}

function changed(name) {
  const calibration = data.calibrations.find((c) => c.id === field("calibration").value);
  if (name === "calibration") {
    const others = live() ? calibration.cards ?? data.choices.gpus.filter((g) => g.kind === calibration.kind).map((g) => g.name) : [...new Set(data.grid.cells.filter((c) => c.calibration === calibration.id).map((c) => c.gpu))];
    const how = (word) => (calibration.cards ? "" : ` (${word})`);
    fill(field("gpu"), [[calibration.gpu, calibration.gpu + how("measured")],
                        ...others.filter((g) => g !== calibration.gpu).map((g) => [g, g + how("carried over")])], field("gpu").value);
    const first = calibration.default_recipe, recipes = live() ? [...new Set([first, ...calibration.recipes])] : [first];
    fill(field("recipe"), recipes.map((r) => [r, r]), first);
    field("recipe").disabled = !live();
  }
  if (name === "calibration" || name === "gpu") {
    const card = data.choices.gpus.find((g) => g.name === field("gpu").value);
    field("price").value = card && card.price ? ((card.price.low + card.price.high) / 2).toFixed(2) : "";
  }
  for (const label of form.querySelectorAll(".custom")) label.hidden = field("size").value !== "";
  if (["price", "demand", "utilisation", "peak", "candidates"].includes(name)) return showAnswer();     // no new estimate
  clearTimeout(timer);
  $("answer").classList.add("stale");
  timer = setTimeout(ask, live() ? 150 : 0);
}

function question() {
  const size = field("size").value, [width, height] = size ? size.split("x") : [field("width").value, field("height").value];
  const calibration = data.calibrations.find((c) => c.id === field("calibration").value), gpu = field("gpu").value;
  const q = { width, height, calibration: calibration.id };
  for (const name of ["model", "recipe", "seconds", "fps", "steps", "guidance"]) q[name] = field(name).value;
  if (gpu !== calibration.gpu) q.gpu = gpu;
  return q;
}

function say(text, isError) { $("state").textContent = text; $("state").className = isError ? "error" : ""; }

async function ask() {
  if (!form.checkValidity()) return failed("A field holds no number that is taken.");
  const mine = ++asked;
  if (aborter) aborter.abort();
  if (!live()) { const [found, why] = fromGrid(question()); return found ? arrived(found) : failed(why); }
  aborter = new AbortController();
  say("counting and predicting …");
  try {
    const reply = await fetch(`/api/estimate?${new URLSearchParams(question())}`, { signal: aborter.signal });
    const body = await reply.json();
    if (mine !== asked) return;
    if (reply.status === 409) { timer = setTimeout(ask, 300); return; }         // another page asked later: once more
    reply.ok ? arrived(body) : failed(body.error);
  } catch (error) {
    if (error.name !== "AbortError" && mine === asked) failed("The server does not answer: is `ldt-bench explore` still running?");
  }
}

function failed(why) { answer = null; $("answer").replaceChildren(); $("warnings").hidden = true; $("how").textContent = ""; say(why, true); }

function arrived(found) { answer = found; say(""); showAnswer(); }

// Log-log between the counted lengths; see bench/explore/grid.py.
function fromGrid(q) {
  const gpu = field("gpu").value, where = { calibration: q.calibration, model: q.model, width: +q.width, height: +q.height, guidance: q.guidance, gpu };
  const match = (cell) => Object.entries(where).every(([name, value]) => cell[name] === value), cell = data.grid.cells.find(match);
  if (!cell) return [null, data.grid.missing.find(match)?.reason ?? "This page holds no grid for that choice; `ldt-bench explore` on the results does."];
  const frames = Math.max(1, Math.round(q.seconds * q.fps)), nodes = cell.nodes, last = nodes[nodes.length - 1];
  if (frames < 0.97 * nodes[0].frames || frames > 1.03 * last.frames)
    return [null, `${frames} frames; this page holds ${nodes[0].frames} to ${last.frames}. \`ldt-bench explore\` takes any.`];
  let i = nodes.findIndex((node) => node.frames >= frames);
  i = Math.max(1, i < 0 ? nodes.length - 1 : i);
  const a = nodes[i - 1], b = nodes[i], share = Math.log(frames / a.frames) / Math.log(b.frames / a.frames);
  const near = Math.abs(share) < 1e-9 ? a : Math.abs(share - 1) < 1e-9 ? b : null;
  const mix = (x, y) => (x > 0 && y > 0 ? Math.exp((1 - share) * Math.log(x) + share * Math.log(y)) : (1 - share) * x + share * y);
  const at = (part) => a[part].map((x, k) => mix(x, b[part][k])), step = at("step"), rest = at("rest"), steps = +q.steps;
  const quantity = ([value, low, high]) => ({ value, low, high }), video = quantity(step.map((s, k) => steps * s + rest[k]));
  const minutes = (s) => frames / q.fps / 60 * 3600 / s, errors = data.grid.left_out_errors;
  const provenance = [a, b].some((n) => n.provenance === "extrapolated") ? "extrapolated" : "fitted";
  return [{ frames, tokens: null, recipe: q.recipe, gpu, fits_memory: a.fits === false || b.fits === false ? false : a.fits, provenance,
    warnings: [...new Set([...(near ?? b).warnings, ...(near ? [] : [`interpolated between ${a.frames} and ${b.frames} frames` +
      (errors ? `; with each inner length left out in turn, a step's seconds were off by ${digits(100 * errors.mean)} % on average, ${digits(100 * errors.worst)} % at worst` : "")])])],
    heldout_error: null, step_s: quantity(step), video_s: video, kwh_per_minute: null, stages: {},
    minutes_per_gpu_hour: { value: minutes(video.value), low: minutes(video.high), high: minutes(video.low) } }, null];
}

// GPUs for a demand, as bench.studies.pencil.demand.fleet and Headroom.factor.
function fleet(minutesPerHour) {
  const number = (name) => +field(name).value, d = data.choices.demand;
  return number("demand") / (minutesPerHour * d.hours_per_day) * number("peak") * number("candidates") / number("utilisation");
}

function showAnswer() {
  if (!answer) return;
  const m = answer.minutes_per_gpu_hour, tiles = [], price = field("price").value === "" ? null : +field("price").value;
  const add = (title, q, format, note) => {
    const div = make("div"), dd = make("dd", format(q.value), "number"), small = make("dd", range(q, format) + " ", "small");
    small.append(make("span", answer.provenance, `tag ${answer.provenance}`));
    div.append(make("dt", title), dd, small, ...(note ? [make("dd", note, "small")] : []));
    div.dataset.value = q.value;
    tiles.push(div);
  };
  add("Minutes of video per GPU-hour", m, digits);
  if (price !== null) add("Dollars a minute of video", { value: price / m.value, low: price / m.high, high: m.low > 0 ? price / m.low : Infinity }, dollars, `at ${dollars(price)} per GPU-hour (claimed)`);
  if (form.checkValidity()) add("GPUs for the demand", { value: fleet(m.value), low: fleet(m.high), high: fleet(m.low) }, (x) => (x < 1000 ? digits(x) : Math.round(x).toLocaleString("en")),
    "demand and headroom: claimed, as typed above");
  add("Seconds of a denoising step", answer.step_s, seconds);
  add("Time of one video", answer.video_s, seconds, Object.entries(answer.stages).map(([n, q]) => `${n.replaceAll("_", " ")} ${seconds(q.value)}`).join(", "));
  if (answer.kwh_per_minute) add("kWh a minute of video", answer.kwh_per_minute, digits);
  $("answer").replaceChildren(...tiles);
  $("answer").classList.remove("stale");
  $("warnings").replaceChildren(...answer.warnings.map((w) => make("li", w)));
  $("warnings").hidden = !answer.warnings.length;
  const error = answer.heldout_error?.mean ?? data.calibrations.find((c) => c.id === field("calibration").value)?.leave_one_out[answer.recipe];
  $("how").textContent = `${answer.frames.toLocaleString("en")} frames` + (answer.tokens ? `, ${answer.tokens.toLocaleString("en")} tokens (counted)` : "") +
    `; recipe ${answer.recipe} on ${answer.gpu}` + (answer.fits_memory === null ? "" : answer.fits_memory ? "; fits its memory (counted)" : "; does not fit its memory (counted)") +
    (error != null ? `; its held-out error is ${digits(100 * error)} % on average` : "") +
    (live() ? ". Counted for exactly this point." : ". From this page's grid of predictions; no server is asked.");
}

// Start -------------------------------------------------------------------------------------------------------------
function setTheme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  $("theme").textContent = dark ? "Light theme" : "Dark theme";
  if (table) { drawScatter(); compare(); }
}

async function start() {
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
  $("theme").addEventListener("click", () => setTheme(!document.documentElement.classList.contains("dark")));
  data = $("data") ? JSON.parse($("data").textContent) : await (await fetch("/api/table")).json();
  if (data.error) { $("summary").textContent = data.error; return; }
  plain = decode(data);
  $("summary").textContent = `${data.rows.toLocaleString("en")} points in ${new Set(plain.result).size} results, ${data.calibrations.filter((c) => !c.cards).length} of them calibrated` +
    (data.grid ? "; a static copy, made by ldt-bench explore --export" : "");
  if (data.problems.length) {
    $("problems").hidden = false;
    $("problems").querySelector("summary").textContent = `${data.problems.length + data.more_problems} lines could not be read`;
    $("problems").querySelector("ul").replaceChildren(...data.problems.map((p) => make("li", p)));
  }
  setUp();
  drawTable();
  compare();
  for (const id of ["figure", "colour"]) $(id).addEventListener("change", drawScatter);
  for (const id of ["a", "b"]) $(id).addEventListener("change", compare);
  $("clear").addEventListener("click", () => { for (const id of ["a", "b"]) $(id).value = ""; table.rows().deselect(); compare(); });
  document.documentElement.dataset.ready = "yes";
}

start();

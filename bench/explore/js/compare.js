// Two results side by side, or ticked rows against the first of them.
const MOST_BARS = 12, MOST_COMPARED = 200;

const bothChosen = () => Boolean($("a").value && $("b").value && $("a").value !== $("b").value);
const rowsOf = (result) => plain.result.flatMap((name, r) => (name === result ? [r] : []));
const label = (r) => `${plain.model[r]} ${plain.workload[r]} ${plain.recipe[r]} ${plain.gpu[r]}`;

// Rows of the same point in A and in B.
function pairs() {
  const key = (r) => JSON.stringify([plain.model[r], plain.workload[r], plain.recipe[r], plain.guidance[r]]);
  const timed = (result) => rowsOf(result).filter((r) => plain.step_s[r] !== null), first = new Map(timed($("a").value).map((r) => [key(r), r]));
  return timed($("b").value).filter((r) => first.has(key(r))).map((r) => [first.get(key(r)), r]);
}

function comparedPairs() {
  if (bothChosen()) return pairs();
  const ticked = table.rows({ selected: true }).indexes().toArray();
  return ticked.slice(1).map((r) => [ticked[0], r]);
}

// As the table shows a pair, and as its CSV has it.
function comparedRows() {
  const head = ["point", "seconds_a", "seconds_b", "ratio", "intervals", "minutes_per_device_hour_a", "minutes_per_device_hour_b"];
  return [head, ...comparedPairs().map(([a, b]) => {
    const [x, y] = [plain.step_s[a], plain.step_s[b]], timed = x !== null && y !== null;
    const apart = timed && (plain.step_low_s[a] > plain.step_high_s[b] || plain.step_low_s[b] > plain.step_high_s[a]);
    return [label(b), x, y, timed ? y / x : null, timed ? (apart ? "apart" : "overlap") : null, plain.minutes[a], plain.minutes[b]];
  })];
}

function tableLine(cells, tag, words = []) {
  const row = make("tr");
  row.append(...cells.map((text, i) => make(i ? tag : "th", text, i > 0 && !words.includes(i) ? "n" : "")));
  return row;
}

function fillTable(id, head, rows, words) {
  const thead = make("thead"), tbody = make("tbody");
  thead.append(tableLine(head, "th", words));
  tbody.append(...rows.map((cells) => tableLine(cells, "td", words)));
  $(id).replaceChildren(...(rows.length ? [thead, tbody] : []));
}

function compare() {
  const both = bothChosen(), found = comparedPairs(), rows = comparedRows().slice(1, 1 + MOST_COMPARED);
  const hint = both ? `${found.length ? `${found.length} points are in both` : "No point is in both, so nothing can be compared"}. The command ldt-bench compare weighs noise and drift, and gives a verdict.`
    : found.length ? "Ratios are to the first ticked row." : "Choose two results, or tick two or more rows above.";
  $("compare-hint").textContent = hint + (found.length > MOST_COMPARED ? ` The first ${MOST_COMPARED} are shown.` : "");
  showSides(both, rows);
  const [first, second] = both ? ["A", "B"] : ["First", "This"];
  fillTable("compared", ["Point", `Step, ${first}`, `Step, ${second}`, "Ratio of times", "Intervals", `Minutes an hour, ${first}`, `Minutes an hour, ${second}`],
    rows.map(([point, x, y, ratio, apart, m, n]) => [point, seconds(x), seconds(y), digits(ratio), apart ?? "–", digits(m), digits(n)]), [4]);
  $("compared-csv").hidden = !rows.length;
  drawBars(both, found.slice(0, MOST_BARS));
}

// What A and B are: device, date, suite, points, and the ratio of the points in both.
function showSides(both, rows) {
  if (!both) return $("sides").replaceChildren();
  const ratios = rows.map((row) => row[3]).filter((x) => x !== null).sort((x, y) => x - y), middle = ratios[Math.floor(ratios.length / 2)];
  const of = (name, result) => [...new Set(rowsOf(result).map((r) => plain[name][r] ?? "–"))].join(", ");
  const sides = [$("a").value, $("b").value], line = (title, tell) => [title, ...sides.map(tell)];
  fillTable("sides", ["", "A", "B"], [
    line("Result", (result) => result), line("Device", (result) => of("device_name", result)), line("Suite", (result) => of("suite", result)),
    line("Measured", (result) => of("started_utc", result).slice(0, 16).replace("T", " ")),
    line("Points", (result) => String(rowsOf(result).length)),
    ["Median ratio of step times, B over A", ratios.length ? "1" : "–", ratios.length ? `${digits(middle)} (${digits(ratios[0])} to ${digits(ratios.at(-1))}), ${ratios.length} points` : "–"],
  ], [1, 2]);
}

function drawBars(both, found) {
  if (!found.length) { Plotly.purge("bars"); $("bars").replaceChildren(); return; }
  const shownRows = both ? found.map(([, b]) => b) : [found[0][0], ...found.map(([, b]) => b)];
  const of = (members, name, colour) => ({
    type: "bar", orientation: "h", name, y: members.map((_, i) => i), x: members.map((r) => plain.step_s[r]), marker: { color: colour },
    error_x: { type: "data", symmetric: false, array: members.map((r) => plain.step_high_s[r] - plain.step_s[r]),
               arrayminus: members.map((r) => plain.step_s[r] - plain.step_low_s[r]) }, hovertemplate: "%{x:.4g} s<extra></extra>" });
  const bars = both ? [of(found.map(([a]) => a), "A", COLOURS[0]), of(shownRows, "B", COLOURS[1])] : [of(shownRows, "", COLOURS[0])];
  const most = window.innerWidth < 640 ? 22 : 46, cut = (t) => (t.length > most ? `${t.slice(0, most - 1)}…` : t);
  Plotly.react("bars", bars, look({ height: Math.max(256, 90 + 34 * shownRows.length * bars.length), showlegend: both,
    xaxis: { title: { text: "seconds of a denoising step, measured" }, rangemode: "tozero" },
    yaxis: { tickvals: shownRows.map((_, i) => i), ticktext: shownRows.map((r) => esc(cut(label(r)))), autorange: "reversed" } }), SETTINGS);
}

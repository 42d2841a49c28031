// The page comes to life.
function setTheme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  $("theme").textContent = dark ? "Light theme" : "Dark theme";
  if (table) { drawScatter(); compare(); }
}

function describe() {
  const results = new Set(plain.result).size, calibrated = data.calibrations.filter((c) => !c.cards).length;
  $("summary").textContent = data.rows
    ? `${data.rows.toLocaleString("en")} points in ${results} results, ${calibrated} of them calibrated. Every time is measured: a median with its interval.`
    : "Nothing is measured here yet: `ldt-bench run smoke` measures this device in a minute.";
  if (data.grid) $("summary").textContent += " A static copy, made by ldt-bench explore --export.";
  const reports = Object.entries(data.reports);
  $("reports").hidden = !reports.length;
  $("reports").querySelector("ul").replaceChildren(...reports.map(([name, address]) => {
    const item = make("li"), link = make("a", name);
    link.href = address;
    item.append(link);
    return item;
  }));
  if (!data.problems.length) return;
  $("problems").hidden = false;
  $("problems").querySelector("summary").textContent = `${data.problems.length + data.more_problems} lines could not be read`;
  $("problems").querySelector("ul").replaceChildren(...data.problems.map((p) => make("li", p)));
}

function setUpMeasured(search) {
  $("measured").hidden = $("comparing").hidden = !data.rows;
  if (!data.rows) { document.documentElement.dataset.drawn = 0; return; }
  drawTable(search);
  compare();
  table.on("search", remember);
  for (const id of ["figure", "colour"]) $(id).addEventListener("change", () => { drawScatter(); remember(); });
  for (const id of ["a", "b"]) $(id).addEventListener("change", () => { compare(); remember(); });
  $("clear").addEventListener("click", () => { for (const id of ["a", "b"]) $(id).value = ""; table.rows().deselect(); compare(); remember(); });
}

function keys(event) {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const search = document.querySelector(".dt-search input");
  if (search) { event.preventDefault(); search.focus(); }
}

async function start() {
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
  $("theme").addEventListener("click", () => setTheme(!document.documentElement.classList.contains("dark")));
  data = $("data") ? JSON.parse($("data").textContent) : await (await fetch("/api/table")).json();
  if (data.error) { say(data.error, true); return; }
  plain = decode(data);
  for (const id of ["a", "b"]) fill($(id), [["", "ticked rows"], ...[...new Set(plain.result)].sort().map((r) => [r, r])]);
  describe();
  setUpFleet();
  setUp();
  setUpMeasured(recall());
  ask();
  const rows = { cards: cardRows, points: pointRows, compared: comparedRows };
  for (const button of document.querySelectorAll("[data-csv]"))
    button.addEventListener("click", () => save(csv(rows[button.dataset.csv]()), `ldt-bench-${button.dataset.csv}.csv`));
  $("order").addEventListener("change", () => { showCards(); remember(); });
  $("link").addEventListener("click", copyLink);
  addEventListener("hashchange", () => location.reload());       // a link that was put into this page's own address
  addEventListener("keydown", keys);
  document.documentElement.dataset.ready = "yes";
}

start();

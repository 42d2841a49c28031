// What is asked, of the server or of the grid that an exported page holds.
const form = $("ask"), field = (name) => form.elements[name];
const live = () => !data.grid;
const PUBLISHED = "published evidence";
let asked = 0, aborter = null, answer = null, timer = null;

const source = () => data.calibrations.find((c) => c.id === field("calibration").value);
const isCpu = () => source().kind === "cpu";
const asObject = (node) => Object.fromEntries(data.grid.fields.map((name, i) => [name, node[i]]));
const cellsOf = (id) => data.grid.cells.filter((cell) => cell.calibration === id);

function setUp() {
  const { calibrations, grid } = data;
  const usable = grid ? calibrations.filter((c) => cellsOf(c.id).length) : calibrations;
  if (!usable.length) { form.hidden = true; say("Nothing in this page can be predicted."); return; }
  const first = usable.filter((c) => c.kind !== "cpu" && !c.cards).pop() ?? usable.find((c) => c.cards) ?? usable.at(-1);
  fill(field("calibration"), usable.map((c) => [c.id, c.cards ? "what others published" : `measured: ${c.gpu}, ${c.id}`]), first.id);
  offer();
  takeOwnClip();
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => changed(event.target.name));
}

// What the controls offer with the chosen evidence.
function offer() {
  const { choices, grid } = data, chosen = source(), measured = new Set(plain.model);
  const models = grid ? [...new Set(cellsOf(chosen.id).map((c) => c.model))] : choices.models;
  const before = field("model").value, wanted = models.includes(before) ? before : chosen.headline_model;
  fill(field("model"), models.map((m) => [m, measured.has(m) ? `${m} (measured here)` : m]), wanted);
  offerSizes();
  const others = live() ? chosen.cards ?? choices.gpus.filter((g) => g.kind === chosen.kind).map((g) => g.name)
    : [...new Set(cellsOf(chosen.id).map((c) => c.gpu))];
  const how = (word) => (chosen.cards ? "" : ` (${word})`);
  fill(field("gpu"), [[chosen.gpu, chosen.gpu + how("measured")],
                      ...others.filter((g) => g !== chosen.gpu).map((g) => [g, g + how("carried over")])], field("gpu").value);
  const recipes = live() ? [...new Set([chosen.default_recipe, ...chosen.recipes])] : [chosen.default_recipe];
  fill(field("recipe"), recipes.map((r) => [r, r]), chosen.default_recipe);
  field("recipe").disabled = recipes.length < 2;
  showCustom();
}

function offerSizes() {
  const model = field("model").value, held = live() ? [] : cellsOf(source().id).filter((c) => c.model === model);
  const found = live() ? data.choices.sizes[model] : held.map((c) => [c.width, c.height]);
  const sizes = [...new Map(found.map(([w, h]) => [`${w}x${h}`, `${w} × ${h}`]))];
  fill(field("size"), live() ? [...sizes, ["", "other …"]] : sizes, field("size").value || sizes[0][0]);
}

// A model is asked about with the clip that its own repository makes, until the reader says otherwise.
function takeOwnClip() {
  offerSizes();
  const clip = data.choices.clips[field("model").value];
  if (!clip) return;
  const size = `${clip.width}x${clip.height}`;
  if ([...field("size").options].some((o) => o.value === size)) field("size").value = size;
  field("seconds").value = +(clip.frames / clip.fps).toFixed(4);
  field("fps").value = clip.fps;
  field("steps").value = clip.steps;
  field("guidance").value = clip.guidance === "cfg" ? "cfg" : "none";
}

function showCustom() { for (const label of form.querySelectorAll(".custom")) label.hidden = field("size").value !== ""; }

function changed(name) {
  const before = field("model").value;
  if (name === "calibration") offer();
  if (name === "model" || before !== field("model").value) takeOwnClip();
  showCustom();
  remember();
  clearTimeout(timer);
  $("said").classList.add("stale");
  timer = setTimeout(ask, live() ? 150 : 0);
}

function question() {
  const size = field("size").value, [width, height] = size ? size.split("x") : [field("width").value, field("height").value];
  const gpu = field("gpu").value, q = { width, height, calibration: source().id };
  for (const name of ["model", "recipe", "seconds", "fps", "steps", "guidance"]) q[name] = field(name).value;
  if (gpu !== source().gpu) q.gpu = gpu;
  return q;
}

function say(text, isError) { $("state").textContent = text; $("state").className = isError ? "error" : ""; }

async function ask() {
  if (form.hidden) return;
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

// An exported page: its cells hold answers at counted lengths, and are log-log between them; see bench/explore/grid.py.
function fromGrid(q) {
  const gpu = field("gpu").value, here = { ...q, gpu }, cell = cellOf(here);
  if (!cell) {
    const reason = data.grid.missing.find((other) => isCell(other, here))?.reason;
    return [null, reason ?? "This page holds no grid for that choice; `ldt-bench explore` on the results does."];
  }
  const found = between(cell, q);
  if (typeof found === "string") return [null, found];
  const cards = isCpu() ? [] : data.grid.cells.filter((other) => isCell(other, { ...here, calibration: PUBLISHED, gpu: other.gpu }));
  const bars = cards.map((other) => ({ gpu: other.gpu, ...between(other, q) })).filter((bar) => bar.minutes_per_gpu_hour);
  bars.sort((a, b) => b.minutes_per_gpu_hour.value - a.minutes_per_gpu_hour.value);
  return [{ ...found, gpu, recipe: q.recipe, cards: bars }, null];
}

function isCell(cell, q) {
  return cell.calibration === q.calibration && cell.model === q.model && cell.gpu === q.gpu &&
    cell.width === +q.width && cell.height === +q.height && cell.guidance === q.guidance;
}

const cellOf = (q) => data.grid.cells.find((cell) => isCell(cell, q));

// The answer at a length, or why there is none.
function between(cell, q) {
  const frames = Math.max(1, Math.round(q.seconds * q.fps)), nodes = cell.nodes.map(asObject), last = nodes.at(-1);
  if (frames < 0.97 * nodes[0].frames || frames > 1.03 * last.frames)
    return `${frames.toLocaleString("en")} frames; this page holds ${nodes[0].frames} to ${last.frames.toLocaleString("en")}. \`ldt-bench explore\` takes any.`;
  const near = nodes.find((node) => Math.abs(node.frames - frames) <= Math.min(4, 0.03 * node.frames));    // the model takes that length alone
  const upper = Math.max(1, nodes.findIndex((node) => node.frames >= frames)), a = nodes[upper - 1], b = nodes[upper];
  const share = Math.log(frames / a.frames) / Math.log(b.frames / a.frames);
  const mix = (x, y) => (x > 0 && y > 0 ? Math.exp((1 - share) * Math.log(x) + share * Math.log(y)) : (1 - share) * x + share * y);
  const at = (part) => (near ? near[part] : a[part].map((x, k) => mix(x, b[part][k])));
  const used = near ? [near] : share < 0.5 ? [a] : [b], step = at("step"), rest = at("rest"), length = near ? near.frames : frames;
  const quantity = ([value, low, high]) => ({ value, low, high }), video = quantity(step.map((s, k) => q.steps * s + rest[k]));
  const minutes = (s) => length / q.fps / 60 * 3600 / s, error = data.grid.left_out_errors;
  const words = used[0].warnings.map((place) => data.grid.words[place]);
  if (!near) words.push(`interpolated between ${a.frames} and ${b.frames} frames` + (error ?
    `; with each inner length left out in turn, a step's seconds were off by ${digits(100 * error.mean)} % on average, ${digits(100 * error.worst)} % at worst` : ""));
  return { frames: length, tokens: near ? near.tokens : null, fits_memory: used[0].fits, provenance: used[0].provenance,
    evidence: data.grid.words[used[0].evidence], warnings: words, step_s: quantity(step), video_s: video, kwh_per_minute: null,
    minutes_per_gpu_hour: { value: minutes(video.value), low: minutes(video.high), high: minutes(video.low) } };
}

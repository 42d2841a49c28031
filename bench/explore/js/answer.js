// The answer first; then the same video on every card.
function priceOf(gpu) {
  if (linked.prices.has(gpu)) return linked.prices.get(gpu);
  const price = data.choices.gpus.find((g) => g.name === gpu)?.price;
  return price ? Math.round(50 * (price.low + price.high)) / 100 : null;
}

const hour = () => (isCpu() ? "hour of this CPU" : "GPU-hour");
const perMinute = (price, m) => ({ value: price / m.value, low: price / m.high, high: m.low > 0 ? price / m.low : Infinity });

function failed(why) {
  answer = null;
  $("said").hidden = $("warnings").hidden = $("by-card").hidden = true;
  $("asked").textContent = "";
  say(why, true);
}

function arrived(found) { answer = found; say(""); showAnswer(); }

function showAnswer() {
  if (!answer) return;
  showHeadline();
  showCards();
  showFleet();
}

function showHeadline() {
  const m = answer.minutes_per_gpu_hour, gpu = answer.gpu, price = isCpu() ? null : priceOf(gpu);
  $("question").textContent = `How many minutes of video does ${field("model").value} make per hour on ${isCpu() ? "this CPU" : `one ${gpu}`}?`;
  $("asked").textContent = askedWords();
  $("number").textContent = digits(m.value);
  $("number").dataset.value = m.value;
  $("unit").replaceChildren(`minutes of video per ${hour()} `, tag(answer.provenance), make("br"), `${ends(m, digits)} (90 %)`);
  $("sure").textContent = sentence(answer.evidence) + (answer.fits_memory === false ? " Its weights do not fit this card's memory." : "");
  const tiles = [];
  if (price) tiles.push(tile("Dollars a minute of video", perMinute(price, m), dollars, `at ${dollars(price)} an hour (${linked.prices.has(gpu) ? "your price" : "claimed"})`));
  tiles.push(tile("Time of one such clip", answer.video_s, seconds), tile("One denoising step", answer.step_s, seconds));
  if (answer.kwh_per_minute) tiles.push(tile("kWh a minute of video", answer.kwh_per_minute, digits));
  $("tiles").replaceChildren(...tiles);
  $("warnings").replaceChildren(...answer.warnings.map((w) => make("li", w)));
  $("warnings").hidden = !answer.warnings.length;
  $("said").hidden = false;
  $("said").classList.remove("stale");
}

function askedWords() {
  const size = field("size").value ? field("size").value.replace("x", " × ") : `${field("width").value} × ${field("height").value}`;
  const tokens = answer.tokens ? `, ${answer.tokens.toLocaleString("en")} tokens (counted)` : "";
  return `${size}, ${field("seconds").value} s at ${field("fps").value} frames a second (${answer.frames.toLocaleString("en")} frames${tokens}), ` +
    `${field("steps").value} steps, guidance ${field("guidance").value === "cfg" ? "on" : "off"}; ${answer.recipe}.`;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + ".";
const tag = (word) => make("span", word, `tag ${word}`);

function tile(title, q, format, note) {
  const div = make("div"), small = make("dd", q.low > 0 ? `${ends(q, format)} (90 %) ` : "at most ", "small");
  small.append(tag(answer.provenance));
  div.append(make("dt", title), make("dd", format(q.value), "number"), small, ...(note ? [make("dd", note, "small")] : []));
  div.dataset.value = q.value;
  return div;
}

// A bar of HTML: its length is the value's share of the largest, its line the interval.
function bar(q, most, format, provenance) {
  const cell = make("td", undefined, "bar"), track = make("div", undefined, "track"), filled = make("i"), line = make("b");
  const share = (x) => `${Math.max(0, Math.min(100, 100 * x / most)).toFixed(2)}%`;
  filled.style.width = share(q.value);
  line.style.left = share(q.low);
  line.style.right = `${(100 - Math.min(100, 100 * q.high / most)).toFixed(2)}%`;
  track.append(filled, line);
  cell.append(track, make("span", `${format(q.value)} (${ends(q, format)}) `), ...(provenance ? [tag(provenance)] : []));
  return cell;
}

function showCards() {
  const cards = inOrder(answer.cards ?? []), most = Math.max(...cards.map((c) => c.minutes_per_gpu_hour.high));
  $("by-card").hidden = !cards.length;
  $("cards").tBodies[0].replaceChildren(...cards.map((card) => {
    const row = make("tr"), name = make("th"), choose = make("button", card.gpu, "plain");
    row.className = [card.gpu === answer.gpu ? "chosen" : "", card.fits_memory === false ? "unfit" : ""].join(" ").trim();
    choose.type = "button";
    choose.title = `Ask about ${card.gpu}`;
    choose.addEventListener("click", () => { field("gpu").value = card.gpu; changed("gpu"); });
    name.scope = "row";
    name.append(choose, ...(card.fits_memory === false ? [make("small", "weights do not fit")] : []));
    row.append(name, bar(card.minutes_per_gpu_hour, most, digits, card.provenance), priceCell(card.gpu), make("td", "–"));
    return row;
  }));
  showCosts();
}

// As chosen; cards whose memory the weights do not fit come last, whatever they would cost.
function inOrder(cards) {
  const price = (c) => (priceOf(c.gpu) ? priceOf(c.gpu) / c.minutes_per_gpu_hour.value : Infinity);
  const key = $("order").value === "dollars" ? price : (c) => -c.minutes_per_gpu_hour.value;
  const unfit = (c) => +(c.fits_memory === false);
  return [...cards].sort((a, b) => unfit(a) - unfit(b) || key(a) - key(b));
}

// The last column alone, so that a slider is not drawn anew under the hand that moves it.
function showCosts() {
  const costs = inOrder(answer.cards).map((c) => (priceOf(c.gpu) ? perMinute(priceOf(c.gpu), c.minutes_per_gpu_hour) : null));
  const dearest = 1.25 * Math.max(...costs.filter(Boolean).map((q) => q.value));
  [...$("cards").tBodies[0].rows].forEach((row, i) => row.replaceChild(costs[i] ? bar(costs[i], dearest, dollars) : make("td", "–"), row.cells[3]));
}

function priceCell(gpu) {
  const cell = make("td", undefined, "price"), slide = make("input"), typed = make("input"), price = priceOf(gpu);
  Object.assign(slide, { type: "range", min: 0, max: Math.max(12, price ?? 0), step: 0.05, value: price ?? 0 });
  Object.assign(typed, { type: "number", min: 0, step: "any", value: price ?? "", placeholder: "not known" });
  slide.setAttribute("aria-label", `Price of ${gpu}, slider, USD an hour`);
  typed.setAttribute("aria-label", `Price of ${gpu}, USD an hour`);
  const moved = (from, other) => {
    if (from.value === "") linked.prices.delete(gpu);
    else if (+from.value >= 0) linked.prices.set(gpu, +from.value);
    else return;
    other.value = from.value;
    remember();
    showCosts();
    showHeadline();
  };
  slide.addEventListener("input", () => moved(slide, typed));
  typed.addEventListener("input", () => moved(typed, slide));
  cell.append(slide, typed);
  return cell;
}

// GPUs for a demand, as bench.studies.pencil.demand.fleet and Headroom.factor.
function fleet(minutesPerHour) {
  const number = (name) => +$("demand").elements[name].value, d = data.choices.demand;
  return number("demand") / (minutesPerHour * d.hours_per_day) * number("peak") * number("candidates") / number("utilisation");
}

function setUpFleet() {
  const { demand } = data.choices, of = $("demand").elements;
  of.demand.value = demand.minutes_per_day;
  of.utilisation.value = demand.utilisation;
  of.peak.value = demand.peak_over_mean;
  of.candidates.value = demand.candidates_per_upload;
  $("demand").addEventListener("submit", (event) => event.preventDefault());
  $("demand").addEventListener("input", showFleet);
}

function showFleet() {
  $("fleet").hidden = isCpu();
  if (!answer || isCpu() || !$("demand").checkValidity()) return;
  const m = answer.minutes_per_gpu_hour, whole = (x) => (x < 1000 ? digits(x) : Math.round(x).toLocaleString("en"));
  const needed = { value: fleet(m.value), low: fleet(m.high), high: m.low > 0 ? fleet(m.low) : Infinity };
  $("gpus").dataset.value = needed.value;
  $("gpus").textContent = `${whole(needed.value)} × ${answer.gpu} (${ends(needed, whole)}), ${answer.provenance}`;
}

function cardRows() {          // as the table shows them
  const head = ["gpu", "minutes_per_gpu_hour", "low", "high", "provenance", "price_usd_per_hour", "usd_per_minute", "weights_fit_memory"];
  return [head, ...inOrder(answer?.cards ?? []).map((c) => {
    const m = c.minutes_per_gpu_hour, price = priceOf(c.gpu);
    return [c.gpu, m.value, m.low, m.high, c.provenance, price, price ? price / m.value : null, String(c.fits_memory)];
  })];
}

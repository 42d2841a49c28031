// The page's state in its address, so that a link shows what its sender saw.
const linked = { prices: new Map() };      // card -> USD an hour, where the reader moved it

function linkText() {
  const state = new URLSearchParams();
  if (!form.hidden) for (const f of form.elements) if (f.name && !(f.closest("label").hidden)) state.set(f.name, f.value);
  for (const [card, price] of linked.prices) state.append("price", `${card}:${price}`);
  for (const id of ["a", "b"]) if ($(id).value) state.set(id, $(id).value);
  for (const id of ["figure", "colour", "order"]) if ($(id).selectedIndex > 0) state.set(id, $(id).value);
  if (table && table.search()) state.set("search", table.search());
  return state.toString();
}

function remember() {
  history.replaceState(null, "", `#${linkText()}`);
}

// What the address says, into the controls; what they do not offer is left as it is.
function recall() {
  const state = new URLSearchParams(location.hash.slice(1));
  const take = (element, value) => {
    if (value === null || (element.type === "number" && !isFinite(value))) return;
    if (element.tagName !== "SELECT" || [...element.options].some((o) => o.value === value)) element.value = value;
  };
  for (const given of state.getAll("price")) {
    const at = given.lastIndexOf(":"), price = +given.slice(at + 1);
    if (at > 0 && price >= 0 && isFinite(price)) linked.prices.set(given.slice(0, at), price);
  }
  if (!form.hidden) {
    take(field("calibration"), state.get("calibration"));
    offer();
    take(field("model"), state.get("model"));
    if (state.has("model")) takeOwnClip();
    for (const f of form.elements) if (f.name && f.name !== "calibration") take(f, state.get(f.name));
    showCustom();
  }
  for (const id of ["a", "b", "figure", "colour", "order"]) take($(id), state.get(id));
  return state.get("search") ?? "";
}

async function copyLink() {
  remember();
  try {
    await navigator.clipboard.writeText(location.href);
    $("copied").textContent = "Copied.";
  } catch {
    $("copied").textContent = "The address of this page is the link: copy it from the browser.";
  }
}

// The overview: a live stream of snapshots in, one form out. All text is set as text, never as markup.

import { amperes, byId, clock, known, listen, onSubmit, round, tell, wattHours } from "/site.js";

const CAR = {
  A: ["No car", ""], B: ["Car connected", ""], C: ["Charging", "good"],
  D: ["Charging, ventilated", "good"], E: ["Error", "bad"], F: ["Not available", "bad"],
};
const GRID = {
  init: ["Starting", ""], unlimited: ["Not limited", "good"], limited: ["Limited", "warn"], failsafe: ["Fail-safe", "bad"],
};

const watts = (w) => (!known(w) ? "–" : Math.abs(w) >= 1000 ? `${round(w / 1000, 2)} kW` : `${round(w, 0)} W`);
const perLine = (values, name, unit, digits) => {
  const lines = [1, 2, 3].map((line) => values[name.replace("#", line)]);
  return lines.some(known) ? `${lines.map((v) => (known(v) ? round(v, digits) : "–")).join(" · ")} ${unit}` : "–";
};

/** Put texts (or [text, tone]) into the fields of an element; what has not changed is left alone. */
function fill(root, texts) {
  for (const [name, given] of Object.entries(texts)) {
    const field = root.querySelector(`[data-f="${name}"]`);
    const [text, tone] = Array.isArray(given) ? given : [given, undefined];
    if (field.textContent !== String(text)) field.textContent = text;
    if (tone !== undefined && field.dataset.tone !== tone) field.dataset.tone = tone;
  }
}

/** One element per record, made from a template, in the order of the records. */
function list(holder, template, records, key, texts) {
  const old = new Map([...holder.children].map((child) => [child.dataset.key, child]));
  const now = records.map((record) => {
    const element = old.get(record[key]) ?? byId(template).content.firstElementChild.cloneNode(true);
    element.dataset.key = record[key];
    element.classList.toggle("offline", Boolean(record.stale));
    fill(element, texts(record));
    return element;
  });
  if (now.length !== holder.children.length || now.some((child, i) => child !== holder.children[i])) {
    holder.replaceChildren(...now);
  }
}

function trouble(device) {
  if (!device.online) return `Offline: ${device.reason || "no answer"}`;
  return device.stale ? `Stale: last read ${round(device.age_s ?? 0, 0)} s ago` : "";
}

function showGrid(grid) {
  const share = known(grid.power_w) && grid.limit_w > 0 ? grid.power_w / grid.limit_w : grid.power_w > 0 ? 1 : 0;
  fill(byId("grid"), {
    limit: watts(grid.limit_w),
    state: GRID[grid.state] ?? [grid.state, ""],
    reason: grid.reason,
    source: grid.source ? `source: ${grid.source}` : "",
    power: known(grid.power_w)
      ? `Now ${watts(Math.abs(grid.power_w))} ${grid.power_w < 0 ? "fed into the grid" : "from the grid"}`
      : "No current reading of a grid meter",
  });
  const bar = byId("grid").querySelector(".bar");
  bar.dataset.tone = share > 1 || (grid.limit_w <= 0 && grid.power_w > 0) ? "bad" : "";
  bar.firstElementChild.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
}

/** What the box does by itself when the bridge is silent. */
function watchdog(values) {
  if (!known(values.failsafe_a)) return "–";
  const when = values.failsafe_s > 0 ? ` after ${round(values.failsafe_s, 0)} s of silence` : "";
  const fed = known(values.refresh_s) ? `, fed every ${round(values.refresh_s, 1)} s` : "";
  return `${amperes(values.failsafe_a)}${when}${fed}`;
}

const wallbox = (box) => ({
  name: box.name,
  id: box.name === box.id ? "" : box.id,
  trouble: trouble(box),
  power: watts(box.values.power_w),
  state: box.online ? (CAR[box.values.state] ?? ["State unknown", ""]) : ["Offline", "bad"],
  setpoint: box.setpoint_a === 0 ? "0 A (paused)" : amperes(box.setpoint_a),
  confirmed: amperes(box.confirmed_a),
  limit: amperes(box.limit_a),
  currents: perLine(box.values, "current_l#_a", "A", 1),
  session: wattHours(box.values.session_wh),
  watchdog: watchdog(box.values),
  reason: box.setpoint_reason,
});

const meter = (one) => ({
  name: one.name,
  role: one.role,
  trouble: trouble(one),
  power: watts(one.values.power_w),
  currents: perLine(one.values, "current_l#_a", "A", 1),
  voltages: perLine(one.values, "voltage_l#_v", "V", 0),
  import: wattHours(one.values.import_wh),
  export: wattHours(one.values.export_wh),
});

const variable = (one) => ({
  name: one.name,
  value: known(one.value) ? [`${one.value}${one.note ? ` (${one.note})` : ""}`, ""] : [one.error, "bad"],
  expr: String(one.expr),
  source: one.source,
  set: clock(one.set_at),
});

function show(snapshot) {
  showGrid(snapshot.grid);
  list(byId("wallboxes"), "wallbox", snapshot.wallboxes, "id", wallbox);
  list(byId("meters"), "meter", snapshot.meters, "id", meter);
  list(byId("variables"), "variable", snapshot.variables, "name", variable);
  byId("no-wallboxes").hidden = snapshot.wallboxes.length > 0;
  byId("no-meters").hidden = snapshot.meters.length > 0;
  if (byId("names").children.length !== snapshot.variables.length) {
    byId("names").replaceChildren(...snapshot.variables.map((one) => new Option(one.name)));
  }
}

onSubmit(byId("set"), async (told) => {
  const form = byId("set");
  const text = form.expr.value.trim();
  const expr = text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
  const answer = await fetch("/cnf?cmd=set_cm_vars", {
    method: "POST",
    body: JSON.stringify({ vars: [{ name: form.name.value.trim(), expr }] }),
  });
  const said = await answer.json();
  tell(told, answer.ok ? `Set, in force and stored (receipt ${answer.headers.get("X-Receipt")}).` : said, answer.ok ? "good" : "bad");
  if (answer.ok) form.expr.value = "";
});

listen(show);

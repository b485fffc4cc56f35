// Charging sessions of a span of days.

import { ask, byId, clock, listen, onSubmit, rows, tell, wattHours } from "/site.js";

const form = byId("span");
const duration = (seconds) => `${Math.floor(seconds / 3600)}:${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")} h`;

/** What is asked for. The last day is included: the API is told the day after. */
function query() {
  const chosen = new URLSearchParams();
  for (const name of ["wallbox", "from"]) if (form.elements[name].value) chosen.set(name, form.elements[name].value);
  if (form.elements.to.value) {
    const day = new Date(`${form.elements.to.value}T00:00:00Z`);
    day.setUTCDate(day.getUTCDate() + 1);
    chosen.set("to", day.toISOString().slice(0, 10));
  }
  return chosen;
}

const pauses = (one) => Object.entries(one.pauses_s).map(([why, seconds]) => `${why.replaceAll("_", " ")} ${duration(seconds)}`).join(", ");

async function read(told) {
  const answer = await ask("GET", `/api/v1/sessions?${query()}`);
  if (!answer.ok) return tell(told, answer.document, "bad");
  const { sessions } = answer.document;
  rows(byId("rows"), sessions.map((one) => [
    one.wallbox, clock(one.plugged_at), one.ended ? clock(one.unplugged_at) : "still there",
    `${wattHours(one.energy_wh)}${one.estimated ? " (estimated)" : ""}`, duration(one.charging_s), pauses(one) || "–",
  ]));
  const sum = sessions.reduce((total, one) => total + one.energy_wh, 0);
  return tell(told, `${sessions.length} sessions, ${wattHours(sum)}`);
}

form.addEventListener("change", () => { byId("csv").href = `/api/v1/sessions.csv?${query()}`; });
onSubmit(form, read);
form.requestSubmit();
listen((snapshot) => {
  const select = form.elements.wallbox;
  if (select.options.length !== snapshot.wallboxes.length + 1) {
    select.replaceChildren(new Option("all", ""), ...snapshot.wallboxes.map((box) => new Option(box.name, box.id)));
  }
});

// The journal of grid commands and what came of them, of a span of days.

import { ask, byId, clock, listen, onSubmit, rows, tell } from "/site.js";

const form = byId("span");
const SHOWN = ["seq", "at", "local", "kind", "source", "hash", "prev"]; // have columns of their own, or are not for people

function query() {
  const chosen = new URLSearchParams();
  for (const name of ["from", "to"]) if (form.elements[name].value) chosen.set(name, form.elements[name].value);
  return chosen;
}

const text = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

function row(entry) {
  const details = Object.entries(entry).filter(([name]) => !SHOWN.includes(name)).map(([name, value]) => `${name}: ${text(value)}`);
  return [String(entry.seq), clock(entry.at), entry.kind, entry.source ?? "", details.join(" · ")];
}

onSubmit(form, async (told) => {
  const answer = await ask("GET", `/api/v1/journal?${query()}`);
  if (!answer.ok) return tell(told, answer.document, "bad");
  const { entries, more, head } = answer.document;
  byId("head").textContent = head;
  rows(byId("rows"), entries.map(row));
  return tell(told, more ? `The oldest ${entries.length}; choose a shorter span for the others.` : `${entries.length} entries`);
});

form.addEventListener("change", () => { byId("export").href = `/api/v1/journal?${query()}`; });
form.requestSubmit();
listen();

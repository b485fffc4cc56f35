// What if: limits and shares with their reasons for given values of the variables.

import { amperes, ask, byId, listen, onSubmit, rows, tell } from "/site.js";

const form = byId("ask");

/** A field for each variable; what is left empty stays as it is. */
function offer(variables) {
  const names = variables.map((one) => one.name);
  const fields = [...form.querySelectorAll("input")];
  if (fields.map((field) => field.name).join() === names.join()) {
    fields.forEach((field, index) => { field.placeholder = String(variables[index].value ?? variables[index].expr); });
    return;
  }
  byId("variables").replaceChildren(...names.map((name) => {
    const label = document.createElement("label");
    const field = Object.assign(document.createElement("input"), { name, autocomplete: "off", spellcheck: false });
    label.append(name, field);
    return label;
  }));
}

onSubmit(form, async (told) => {
  const given = new URLSearchParams([...new FormData(form)].filter(([, value]) => value.trim() !== ""));
  const answer = await ask("GET", `/api/v1/explain?${given}`);
  if (!answer.ok) return tell(told, answer.document, "bad");
  const { sentences, limits, wallboxes } = answer.document;
  byId("sentences").replaceChildren(...sentences.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  rows(byId("limits"), limits.map((one) => [one.place || "house connection", one.on, amperes(one.room_a), amperes(one.used_a), one.reason ?? ""]));
  rows(byId("boxes"), wallboxes.map((one) => [one.id, amperes(one.gets_a), amperes(one.limit_a), one.reason]));
  return tell(told, "");
});

form.requestSubmit();
listen((snapshot) => offer(snapshot.variables));

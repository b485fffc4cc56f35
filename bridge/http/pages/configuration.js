// The configuration: a form for the gateway that changes single values, and the whole file as text.

import { ask, byId, listen, onSubmit, send, tell } from "/site.js";

const CONFIG = "/api/v1/config";
const PAUSE_MS = 500;
const TRIES = 20;

const gateway = byId("gateway");
const file = byId("file");
const fields = [...gateway.elements].filter((field) => field.name.startsWith("smgw."));
let tag; // of the text that the forms are based on

const valueAt = (tree, path) => path.split(".").reduce((node, key) => node?.[key], tree);
const shown = (field) => (field.type === "checkbox" ? field.checked : field.value.trim() || null);

async function read() {
  const [text, values, store] = await Promise.all([
    ask("GET", CONFIG),
    ask("GET", CONFIG, undefined, { Accept: "application/json" }),
    ask("GET", "/api/v1/certificates"),
  ]);
  const refused = [text, values, store].find((answer) => !answer.ok);
  if (refused) throw new Error(refused.document);
  tag = text.headers.get("ETag");
  file.text.value = text.document;
  number([]);
  for (const field of fields) {
    const value = valueAt(values.document, field.name);
    if (field.dataset.store) offer(field, store.document.certificates, value);
    if (field.type === "checkbox") field.checked = value ?? true; // each is on unless it is switched off
    else field.value = value ?? "";
    field.dataset.was = JSON.stringify(shown(field));
  }
}

/** The certificates a select may choose from: those with a key where it is ours. */
function offer(select, store, value) {
  const names = store.filter((one) => (select.dataset.store === "own" ? one.has_key : one.key_type)).map((one) => one.name);
  if (value && !names.includes(value)) names.push(value);
  select.replaceChildren(new Option("none", ""), ...names.map((name) => new Option(name, name)));
}

// ---- saving

async function settle(form, told, answer) {
  const mistakes = Array.isArray(answer.document) ? answer.document : [];
  complain(form, mistakes);
  if (!answer.ok) {
    const count = mistakes.length === 1 ? "one mistake" : `${mistakes.length} mistakes`;
    tell(told, mistakes.length ? `Nothing was changed: ${count}.` : answer.document, "bad");
    return;
  }
  const wanted = answer.headers.get("ETag");
  if (answer.document.restart) {
    tell(told, "Saved; the doors are opened anew …");
    await reopened();
  }
  await read();
  if (tag === wanted) tell(told, "Saved and in force.", "good");
  else tell(told, "It could not be put into force and was taken back; the log of the bridge says why.", "bad");
}

/** Wait until the bridge answers again. */
async function reopened() {
  for (let attempt = 1; ; attempt += 1) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    try {
      if ((await ask("GET", CONFIG)).ok) return;
    } catch (error) {
      if (attempt === TRIES) throw new Error("the bridge does not answer here any more; its address or certificate may have changed");
    }
  }
}

onSubmit(gateway, async (told) => {
  const changed = fields.filter((field) => JSON.stringify(shown(field)) !== field.dataset.was);
  if (changed.length === 0) return tell(told, "Nothing was changed.");
  return settle(gateway, told, await send("PATCH", CONFIG, changed.map((field) => ({ path: field.name, value: shown(field) }))));
});

onSubmit(file, async (told) => {
  const headers = { "Content-Type": "application/yaml", "If-Match": tag };
  await settle(file, told, await ask("PUT", CONFIG, file.text.value, headers));
});

file.addEventListener("reset", async (event) => {
  event.preventDefault();
  complain(file, []);
  await begin(file);
});

// ---- mistakes, at their lines

function complain(form, mistakes) {
  const list = form.querySelector(".mistakes");
  list.replaceChildren(...mistakes.map(({ line, problem }) => {
    const item = document.createElement("li");
    if (line && form === file) {
      const lead = Object.assign(document.createElement("button"), { type: "button", textContent: `Line ${line}` });
      lead.addEventListener("click", () => goTo(line));
      item.append(lead, " ");
    }
    item.append(problem);
    return item;
  }));
  list.hidden = mistakes.length === 0;
  if (form === file) number(mistakes.map((mistake) => mistake.line));
}

/** The numbers beside the text; those with mistakes stand out. */
function number(wrong) {
  const count = file.text.value.split("\n").length;
  byId("lines").replaceChildren(...Array.from({ length: count }, (_, index) => {
    const item = document.createElement("li");
    item.className = wrong.includes(index + 1) ? "wrong" : "";
    return item;
  }));
  byId("lines").scrollTop = file.text.scrollTop;
}

function goTo(line) {
  const before = file.text.value.split("\n").slice(0, line - 1).join("\n");
  const start = line === 1 ? 0 : before.length + 1;
  const end = file.text.value.indexOf("\n", start);
  file.text.focus();
  file.text.setSelectionRange(start, end < 0 ? file.text.value.length : end);
}

file.text.addEventListener("scroll", () => { byId("lines").scrollTop = file.text.scrollTop; });
file.text.addEventListener("input", () => {
  if (byId("lines").children.length !== file.text.value.split("\n").length) number([]);
});

async function begin(form) {
  const told = form.querySelector("output");
  try {
    await read();
    tell(told, "");
  } catch (error) {
    tell(told, `Cannot be shown: ${error.message}`, "bad");
  }
}

begin(gateway);
listen();

// The configuration: a form for the gateway that changes single values, and the whole file as text.

import { ask, byId, listen, onSubmit, tell } from "/site.js";

const CONFIG = "/api/v1/config";
const PAUSE_MS = 500;
const TRIES = 20;

const gateway = byId("gateway");
const file = byId("file");
const fields = [...gateway.elements].filter((field) => field.name.startsWith("smgw."));
let tag; // of the text that was read last
let base = {}; // the text in the editor before anybody typed in it, and its tag

const valueAt = (tree, path) => path.split(".").reduce((node, key) => node?.[key], tree);
const shown = (field) => (field.type === "checkbox" ? field.checked : field.value.trim() || null);
const typed = (field) => "was" in field.dataset && JSON.stringify(shown(field)) !== field.dataset.was;

/** Put in what is there; what somebody has typed and not saved stays. */
async function read() {
  const [text, values, store] = await Promise.all([
    ask("GET", CONFIG),
    ask("GET", CONFIG, undefined, { Accept: "application/json" }),
    ask("GET", "/api/v1/certificates"),
  ]);
  const refused = [text, values, store].find((answer) => !answer.ok);
  if (refused) throw new Error(refused.document);
  tag = text.headers.get("ETag");
  if (!("shown" in base) || file.text.value === base.shown) {
    file.text.value = text.document;
    base = { shown: file.text.value, tag };
    number([]);
  }
  for (const field of fields) {
    const value = valueAt(values.document, field.name);
    const mine = typed(field) ? shown(field) : undefined;
    if (field.dataset.store) offer(field, store.document.certificates, [value, mine]);
    put(field, value);
    field.dataset.was = JSON.stringify(shown(field));
    if (mine !== undefined) put(field, mine);
  }
}

function put(field, value) {
  if (field.type === "checkbox") field.checked = value ?? true; // each is on unless it is switched off
  else field.value = value ?? "";
}

/** What is typed in a form is saved, or not wanted any more: what is read next takes its place. */
function done(form) {
  if (form === file) base.shown = file.text.value;
  else for (const field of fields) field.dataset.was = JSON.stringify(shown(field));
}

/** The certificates a select may choose from: those with a key where it is ours. */
function offer(select, store, chosen) {
  const names = store.filter((one) => (select.dataset.store === "own" ? one.has_key : one.key_type)).map((one) => one.name);
  for (const name of chosen) if (name && !names.includes(name)) names.push(name);
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
  done(form);
  try {
    await read();
  } catch (error) {
    tell(told, `Saved, but it cannot be shown here any more: ${error.message}`, "bad");
    return;
  }
  if (tag === wanted) tell(told, "Saved and in force.", "good");
  else tell(told, "It could not be put into force and was taken back; the log of the bridge says why.", "bad");
}

/** Wait until the bridge answers again. */
async function reopened() {
  for (let attempt = 1; ; attempt += 1) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    try {
      const { ok, status } = await ask("GET", CONFIG);
      if (ok || status === 401 || status === 403) return; // refused: we may have lost the right to look
    } catch {
      // it is not there yet
    }
    if (attempt === TRIES) throw new Error("the bridge does not answer here any more; its address or certificate may have changed");
  }
}

onSubmit(gateway, async (told) => {
  const before = fields.filter(typed).map((field) => [field, field.dataset.was]);
  await read();
  const moved = before.filter(([field, was]) => typed(field) && field.dataset.was !== was);
  if (moved.length > 0) {
    const now = moved.map(([field]) => `${field.name} meanwhile, to ${JSON.parse(field.dataset.was) ?? "nothing"}`);
    return tell(told, `Somebody else has changed ${now.join("; ")}. Save again to replace it.`, "bad");
  }
  const changed = fields.filter(typed);
  if (changed.length === 0) return tell(told, "Nothing was changed.");
  const body = JSON.stringify(changed.map((field) => ({ path: field.name, value: shown(field) })));
  return settle(gateway, told, await ask("PATCH", CONFIG, body, { "Content-Type": "application/json", "If-Match": tag }));
});

onSubmit(file, async (told) => {
  const headers = { "Content-Type": "application/yaml", "If-Match": base.tag };
  await settle(file, told, await ask("PUT", CONFIG, file.text.value, headers));
});

file.addEventListener("reset", async (event) => {
  event.preventDefault();
  complain(file, []);
  done(file);
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

// The certificates of the house: what there is, new ones, backups. Private keys only leave in an encrypted backup.

import { ask, byId, listen, onSubmit, rows, save, send, tell } from "/site.js";

const STORE = "/api/v1/certificates";
const place = (form) => `${STORE}/${encodeURIComponent(form.elements.name.value.trim())}`;

async function read() {
  const answer = await ask("GET", STORE);
  if (!answer.ok) return tell(byId("told"), answer.document, "bad");
  const { certificates } = answer.document;
  rows(byId("store"), certificates.map(row));
  byId("no-certificates").hidden = certificates.length > 0;
  byId("names").replaceChildren(...certificates.map((one) => new Option(one.name)));
  const own = certificates.filter((one) => one.has_key).map((one) => one.name);
  const select = byId("backup").elements.name;
  const chosen = select.value;
  select.replaceChildren(...own.map((name) => new Option(name, name, false, name === chosen)));
}

function row(one) {
  if (!one.key_type) return [one.name, one.error ?? "requested", one.waiting ? "the answer to the request can be uploaded" : "–", "–", "–", remove(one)];
  const valid = document.createElement("span");
  valid.textContent = one.warning ?? one.not_after.slice(0, 10);
  if (one.warning) valid.dataset.tone = "bad";
  const digits = Object.assign(document.createElement("code"), { textContent: one.fingerprint_sha256 });
  const actions = document.createElement("div");
  actions.className = "actions";
  const file = Object.assign(document.createElement("a"), { href: `${STORE}/${one.name}/pem`, textContent: "Download" });
  file.setAttribute("aria-label", `Download the certificate ${one.name}`);
  actions.append(file, remove(one));
  const whose = `${one.has_key ? "ours" : "a peer’s"}, ${one.key_type}${one.waiting ? ", a new one is requested" : ""}`;
  return [one.name, whose, valid, one.used_as.join(", ") || "–", digits, actions];
}

/** Deleting takes two presses, so that it needs no dialog. */
function remove(one) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Delete", className: "plain" });
  button.setAttribute("aria-label", `Delete the certificate ${one.name}`);
  button.addEventListener("click", async () => {
    if (!button.dataset.asked) {
      button.dataset.asked = "yes";
      button.textContent = "Really delete?";
      button.setAttribute("aria-label", `Really delete the certificate ${one.name}?`);
      return;
    }
    const answer = await ask("DELETE", `${STORE}/${one.name}`);
    tell(byId("told"), answer.ok ? `${one.name} is deleted.` : answer.document, answer.ok ? "good" : "bad");
    await read();
  });
  return button;
}

onSubmit(byId("upload"), async (told) => {
  const form = byId("upload");
  const answer = await ask("PUT", place(form), new FormData(form));
  if (!answer.ok) return tell(told, answer.document, "bad");
  tell(told, `Stored: ${answer.document.subject}, ${answer.document.has_key ? "with its private key" : "without a private key"}.`, "good");
  form.reset();
  return read();
});

onSubmit(byId("make"), async (told, pressed) => {
  const form = byId("make");
  const requested = pressed?.value === "request";
  const wish = { curve: form.elements.curve.value, replace: form.elements.replace.checked };
  if (form.elements.cn.value.trim()) wish.cn = form.elements.cn.value.trim();
  wish.san = form.elements.san.value.split(",").map((name) => name.trim()).filter(Boolean);
  if (!requested && form.elements.days.value) wish.days = Number(form.elements.days.value);
  const answer = await send("POST", `${place(form)}/${requested ? "request" : "create"}`, wish);
  if (!answer.ok) return tell(told, answer.document, "bad");
  form.elements.csr.hidden = !requested;
  form.elements.csr.value = requested ? answer.document : "";
  tell(told, requested ? "The key is made and kept here. Give this to the authority, and upload its answer under the same name." : "Made.", "good");
  return read();
});

onSubmit(byId("backup"), async (told) => {
  const form = byId("backup");
  const answer = await fetch(`${place(form)}/export`, { method: "POST", body: JSON.stringify({ password: form.elements.password.value }) });
  if (!answer.ok) return tell(told, await answer.json(), "bad");
  save(await answer.blob(), `${form.elements.name.value}.p12`);
  form.elements.password.value = "";
  return tell(told, "Saved. Keep it as safe as its password.", "good");
});

read();
listen();

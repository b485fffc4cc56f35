// What all pages share: the live stream with its alarms, requests, and putting texts in. Texts never become markup.

const SILENCE_MS = 5000; // a round is made every second; this long without one means the stream is dead

export const byId = (id) => document.getElementById(id);
export const known = (value) => value !== undefined && value !== null;
export const round = (value, digits) => value.toLocaleString("en", { maximumFractionDigits: digits });
export const amperes = (a) => (known(a) ? `${round(a, 1)} A` : "–");
export const wattHours = (wh) => (known(wh) ? `${round(wh / 1000, 1)} kWh` : "–");
export const clock = (iso) => (iso ? new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" }) : "–");

/** Tell what came of a form. */
export function tell(output, text, tone = "") {
  output.textContent = text;
  output.dataset.tone = tone;
}

/** A request: {ok, status, document (text or JSON), headers}. Fails only when there is no answer. */
export async function ask(method, path, body, headers = {}) {
  const answer = await fetch(path, { method, body, headers });
  const json = (answer.headers.get("Content-Type") ?? "").startsWith("application/json");
  return { ok: answer.ok, status: answer.status, headers: answer.headers, document: json ? await answer.json() : await answer.text() };
}

/** The same with a JSON body. */
export const send = (method, path, value) => ask(method, path, JSON.stringify(value), { "Content-Type": "application/json" });

/** Do something when a form is sent, and tell when it fails. */
export function onSubmit(form, act) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const told = form.querySelector("output");
    tell(told, "…");
    try {
      await act(told, event.submitter);
    } catch (error) {
      tell(told, `No answer: ${error.message}`, "bad");
    }
  });
}

/** Rows of a table, each a list of cells: texts, or elements. */
export function rows(body, records) {
  body.replaceChildren(...records.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((cell) => {
      const place = document.createElement("td");
      place.append(cell);
      return place;
    }));
    return row;
  }));
}

/** Save a text or blob under a name. */
export function save(content, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function showHeader(snapshot) {
  const title = snapshot.site || "SMGW Bridge";
  if (byId("site").textContent !== title) byId("site").textContent = title;
  byId("at").textContent = clock(snapshot.at);
  byId("at").dateTime = snapshot.at;
  const alarms = Object.values(snapshot.alarms);
  if (byId("alarms").innerText !== alarms.join("\n")) {
    byId("alarms").replaceChildren(...alarms.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  }
  byId("alarms").hidden = alarms.length === 0;
}

let silence;

function lost() {
  const since = byId("at").dateTime ? ` What you see is from ${byId("at").textContent}.` : "";
  byId("lost").textContent = `Connection to the bridge lost; trying again.${since}`;
  byId("lost").hidden = false;
}

/** Follow the snapshots; `show` is called with each. */
export function listen(show = () => {}) {
  const stream = new EventSource("/api/v1/events");
  stream.onmessage = (event) => {
    clearTimeout(silence);
    silence = setTimeout(lost, SILENCE_MS);
    byId("lost").hidden = true;
    const snapshot = JSON.parse(event.data);
    showHeader(snapshot);
    show(snapshot);
  };
  stream.onerror = () => {
    lost();
    // The browser tries again by itself unless it was refused.
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => listen(show), SILENCE_MS);
  };
}

// The page: signs in, keeps what it shows up to date, and does what is clicked.

import { call, hasKey, useKey } from "./api.js";
import { Live } from "./live.js";
import { Messages } from "./messages.js";
import { canStart, explain, stateWords, time } from "./words.js";

const $ = (id) => document.getElementById(id);
const sessions = new Map();
const messages = new Messages($("messages"), $("no-messages"));
let chosen = "";
let live = null;
let code = ""; // the QR code that is shown

// --- telling --------------------------------------------------------------------------------

function tell(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// Runs what somebody asked for: its button waits, and an error is told.
async function act(button, work) {
  tell("");
  button.disabled = true;
  try {
    await work();
  } catch (error) {
    if (error.status === 401 && live) signOut(error.message);
    else tell(error.message);
  } finally {
    button.disabled = false;
  }
}

// --- signing in -----------------------------------------------------------------------------

async function begin() {
  // First where the log is, then what there is: changes in between come as events.
  const { last_seq: last } = await call("GET", "/v1/events?limit=1");
  await loadSessions();
  $("sign-in").hidden = true;
  $("workspace").hidden = false;
  $("sign-out").hidden = !hasKey();
  live?.end();
  live = new Live(last, {
    event: take,
    gap: () => refresh(),
    refused: () => signOut("This key does not work any more: it was revoked."),
    state: (isUp) => {
      $("live").textContent = isUp ? "Live" : "Reconnecting…";
      $("live").classList.toggle("up", isUp);
    },
  });
  const wanted = decodeURIComponent(location.hash.slice(1));
  if (sessions.has(wanted)) choose(wanted);
  else if (sessions.size === 1) choose([...sessions.keys()][0]);
}

function signOut(why = "") {
  live?.end();
  live = null;
  useKey("");
  sessions.clear();
  chosen = "";
  messages.show("");
  showCode("");
  $("workspace").hidden = true;
  $("company").hidden = true;
  $("sign-out").hidden = true;
  $("live").textContent = "";
  $("sign-in").hidden = false;
  $("key").value = "";
  $("key").focus();
  tell(why);
}

$("sign-in").addEventListener("submit", (submit) => {
  submit.preventDefault();
  act(submit.submitter ?? $("sign-in").querySelector("button"), async () => {
    useKey($("key").value.trim());
    for (let tries = 1; ; tries++) {
      try {
        await begin();
        break;
      } catch (error) {
        // The daemon restarts in a second or two: not worth typing a key again.
        if (error.status === 503 && tries < 5) {
          await new Promise((wake) => setTimeout(wake, 1000));
          continue;
        }
        useKey("");
        throw error;
      }
    }
    $("key").value = "";
    $("companies-title").focus();
  });
});
$("sign-out").addEventListener("click", () => signOut());

// --- what there is --------------------------------------------------------------------------

async function loadSessions() {
  const found = await call("GET", "/v1/sessions");
  sessions.clear();
  for (const session of found.sessions) sessions.set(session.company, session);
  render();
}

async function loadSession(company) {
  try {
    sessions.set(company, await call("GET", `/v1/sessions/${company}`));
  } catch (error) {
    if (error.name !== "unknown_company") throw error;
    sessions.delete(company);
  }
  render();
}

async function refresh() {
  try {
    await loadSessions();
    if (chosen) await inTurn("sent", () => messages.load());
  } catch (error) {
    tell(error.message);
  }
}

// Loads under one name follow each other: an older answer must never replace a newer one.
const turns = new Map(); // by name: the last one's end
function inTurn(name, work) {
  const turn = (turns.get(name) ?? Promise.resolve()).then(work);
  turns.set(name, turn.catch(() => {})); // whoever asked hears of it
  return turn;
}

// Loads soon, and once for many events. What fails comes again with the next event.
const due = new Set();
function soon(name, work) {
  if (due.has(name)) return;
  due.add(name);
  setTimeout(() => {
    const begin = () => {
      due.delete(name);
      return live && work();
    };
    inTurn(name, begin).catch((error) => tell(error.message));
  }, 100);
}

const sessionTurn = (company) => `session ${company}`;
const reload = (company) => inTurn(sessionTurn(company), () => loadSession(company));

function take({ type, company, ...event }) {
  if (type === "session.state" || type === "session.qr") {
    soon(sessionTurn(company), () => loadSession(company));
  }
  if (company !== chosen) return;
  if (type === "message.received") messages.take({ type, company, ...event });
  if (type === "outbox.state") soon("sent", () => messages.loadSent());
}

// --- showing --------------------------------------------------------------------------------

function badge(element, state) {
  const [words, kind] = stateWords(state);
  element.className = `badge ${kind}`;
  element.textContent = words;
}

function render() {
  const names = [...sessions.keys()].sort();
  const list = $("companies");
  // Entries stay the same elements, so that whoever tabs through them is not thrown out.
  const known = new Map([...list.children].map((entry) => [entry.dataset.company, entry]));
  list.replaceChildren(...names.map((name) => entryOf(name, known.get(name))));
  $("no-companies").hidden = names.length > 0;
  renderCompany();
}

function entryOf(name, entry) {
  if (!entry) {
    entry = document.createElement("li");
    entry.dataset.company = name;
    const button = document.createElement("button");
    button.type = "button";
    const title = document.createElement("span");
    title.textContent = name;
    button.append(title, document.createElement("span"));
    button.addEventListener("click", () => choose(name, true));
    entry.append(button);
  }
  const button = entry.firstChild;
  if (name === chosen) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
  badge(button.lastChild, sessions.get(name).state);
  return entry;
}

function choose(company, moveFocus = false) {
  if (company !== chosen) $("send").reset(); // what was meant for one is not sent by another
  chosen = company;
  tell("");
  $("sent").textContent = "";
  history.replaceState(null, "", `#${encodeURIComponent(company)}`);
  messages.show(company);
  render();
  if (moveFocus) {
    $("company-title").focus({ preventScroll: true });
    $("company").scrollIntoView({ block: "nearest" });
  }
  inTurn("sent", () => messages.load()).catch((error) => tell(error.message));
}

function renderCompany() {
  const session = sessions.get(chosen);
  $("company").hidden = !session;
  if (!session) return showCode("");
  $("company-title").textContent = session.company;
  badge($("state"), session.state);
  const words = explain(session);
  if ($("explanation").textContent !== words) $("explanation").textContent = words;
  $("start").hidden = !canStart(session);
  const starts = { logged_out: "Show a new code", held: "Use this number" };
  $("start").textContent = starts[session.state] ?? "Start";
  $("stop").hidden = session.state === "stopped";
  $("stop").textContent = session.state === "held" ? "Unlink that phone" : "Stop";
  const isPairing = session.state === "pairing";
  $("no-code").hidden = !isPairing || session.qr !== null;
  showCode(isPairing ? session.qr ?? "" : "");
}

async function showCode(wanted) {
  if (wanted === code) return;
  code = wanted;
  const image = $("qr");
  if (image.src) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  $("pairing").hidden = true;
  if (!wanted) return;
  const company = chosen;
  const path = `/v1/sessions/${company}/qr`;
  try {
    const [drawn, about] = await Promise.all([
      call("GET", `${path}?format=svg`), call("GET", path),
    ]);
    if (code !== wanted) return;
    image.src = URL.createObjectURL(drawn);
    $("qr-until").textContent = `This code is good until ${time(about.expires_ms)}.`;
    $("pairing").hidden = false;
  } catch (error) {
    if (code !== wanted) return;
    code = "";
    // The code may have gone in this moment; then an event says what comes instead.
    if (error.name !== "wrong_state") tell(error.message);
  }
}

// --- doing ----------------------------------------------------------------------------------

const verb = (name, body) => async () => {
  const company = chosen;
  await call("POST", `/v1/sessions/${company}/${name}`, { body });
  await reload(company);
};
const stateNow = () => sessions.get(chosen)?.state;
$("stop").addEventListener("click", (click) =>
  act(click.currentTarget, verb(stateNow() === "held" ? "logout" : "stop")));
$("start").addEventListener("click", (click) => {
  const [takeOver, newAccount] = [stateNow() === "conflict", stateNow() === "held"];
  act(click.currentTarget, verb("start", { take_over: takeOver, new_account: newAccount }));
});

$("add").addEventListener("submit", (submit) => {
  submit.preventDefault();
  act($("add").querySelector("button"), async () => {
    const company = $("add-company").value.trim();
    await call("PUT", `/v1/sessions/${company}`);
    await reload(company);
    $("add-company").value = "";
    choose(company, true);
  });
});

// The same attempt has the same key, so that "Send" after a lost answer sends nothing twice.
let attempt = { content: "", key: "" };
function keyFor(content) {
  if (attempt.content !== content) {
    const random = crypto.getRandomValues(new Uint32Array(4));
    attempt = { content, key: `page-${[...random].map((n) => n.toString(36)).join("")}` };
  }
  return attempt.key;
}

$("send").addEventListener("submit", (submit) => {
  submit.preventDefault();
  $("sent").textContent = "";
  act($("send").querySelector("button"), async () => {
    const body = { to: $("to").value.trim(), text: $("text").value };
    const headers = { "Idempotency-Key": keyFor(JSON.stringify([chosen, body])) };
    const row = await call("POST", `/v1/sessions/${chosen}/messages`, { body, headers });
    attempt = { content: "", key: "" };
    $("text").value = "";
    $("sent").textContent = sessions.get(row.company)?.state === "connected"
      ? "Taken; its state is below." : "Taken; it is sent as soon as the company is connected.";
    await inTurn("sent", () => messages.loadSent());
  });
});
$("text").addEventListener("keydown", (press) => {
  if (press.key === "Enter" && (press.ctrlKey || press.metaKey)) $("send").requestSubmit();
});

// --- beginning ------------------------------------------------------------------------------

async function first() {
  try {
    // Also without a key: there are gateways that ask for none.
    await begin();
  } catch (error) {
    if (error.status === 401) signOut(hasKey() ? error.message : "");
    else {
      tell(`${error.message} Trying again…`);
      setTimeout(first, 2000);
      return;
    }
  }
  if (!$("workspace").hidden) tell("");
}
first();

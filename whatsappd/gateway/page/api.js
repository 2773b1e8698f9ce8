// Calls of /v1 with the key, and their errors in plain words.

const KEY = "whatsappd.key";
// In this tab only, and gone with it. Empty: a gateway that asks for none.
let key = sessionStorage.getItem(KEY) ?? "";

export const hasKey = () => key !== "";
export const theKey = () => key;

export function useKey(text) {
  key = text;
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

// `name`: of the problem (RFC 9457), or "offline".
export class ApiError extends Error {
  constructor(name, message, status = 0, data = {}) {
    super(message);
    this.name = name;
    this.status = status;
    this.data = data;
  }
}

// Where `path` of the gateway is: a proxy may have all of it below a path of its own.
export const at = (path) => new URL(`.${path}`, document.baseURI);

export async function call(method, path, { body, headers = {}, signal } = {}) {
  const given = { ...headers };
  if (key) given.Authorization = `Bearer ${key}`;
  if (body !== undefined) given["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(at(path), {
      method,
      headers: given,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal: signal ?? AbortSignal.timeout(20000),
    });
  } catch (error) {
    throw new ApiError("offline", plain("offline"));
  }
  if (!answer.ok) throw await problem(answer);
  if (answer.status === 204) return null;
  const type = answer.headers.get("content-type") ?? "";
  return type.startsWith("application/json") ? answer.json() : answer.blob();
}

async function problem(answer) {
  let told = {};
  try {
    told = await answer.json();
  } catch {
    // A proxy between answered, not the gateway.
  }
  const name = told.name ?? `status_${answer.status}`;
  const text = plain(name, told) ?? told.detail ?? `The answer was ${answer.status}.`;
  return new ApiError(name, text, answer.status, told.data ?? {});
}

const WORDS = {
  offline: "The gateway does not answer. Is it running, and is your network up?",
  unauthenticated: "This key is unknown, or was revoked. Check that you copied all of it.",
  too_many_failures: "Too many wrong keys came from your address. Wait a minute, then try again.",
  unreachable: "The gateway runs, but the WhatsApp daemon behind it does not answer just now.",
  stopping: "The WhatsApp daemon is restarting. Try again in a moment.",
  too_many_requests: "There is too much to do just now. Try again in a moment.",
  unknown_company: "There is no such company any more.",
  queue_full: "Too many messages of this company wait already. Try again later.",
  rate_limited: "This company's sending limit is reached. Try again later.",
  key_conflict: "This message was changed after a first attempt. Send it as a new one.",
  store_failed: "The daemon's disk takes nothing more: somebody must make room.",
  worker_failed: "The company's connection to WhatsApp could not do that. Try to start it again.",
  worker_gone: "The company's connection to WhatsApp broke off. It comes back by itself.",
};

function plain(name, told = {}) {
  if (name === "denied") {
    const needed = told.data?.needed;
    return needed
      ? `Your key may not do that: it takes a key with the scope “${needed}”.`
      : "Your key is not for that. Ask whoever made it.";
  }
  return WORDS[name];
}

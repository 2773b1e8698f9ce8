// States as people say them.

// [badge, kind, sentence]
const STATES = {
  stopped: ["Stopped", "", "It is stopped. Start it to link a phone or to go on."],
  starting: ["Starting", "busy", "It is starting."],
  pairing: ["Waiting for the phone", "busy", "Scan the code with the phone of this company."],
  connecting: ["Connecting", "busy", "It is connecting to WhatsApp."],
  connected: ["Connected", "good", "It is connected."],
  reconnecting: ["Reconnecting", "busy", "The connection was lost; it is coming back by itself."],
  backing_off: ["Trying again", "busy", "It failed, and tries again by itself."],
  logged_out: ["Not linked", "bad", "It is not linked to a phone. Start it to get a new code."],
  conflict: ["Used elsewhere", "bad",
    "Another program opened this account. End that one, then start this again."],
  held: ["Another number", "bad",
    "It is linked with a phone that is not this company's."],
  banned: ["Blocked by WhatsApp", "bad", "WhatsApp has blocked this account for a while."],
  outdated: ["Too old", "bad", "WhatsApp wants a newer version: whatsappd must be upgraded."],
  failed: ["Failed", "bad", "It failed too often and has given up. Start it to try again."],
};

const SENDING = {
  queued: "waiting", sending: "sending", sent: "sent\u00a0✓", delivered: "delivered\u00a0✓✓",
  read: "read\u00a0✓✓", played: "played\u00a0✓✓", failed: "failed", expired: "expired, not sent",
  cancelled: "cancelled", uncertain: "uncertain: it may have been sent",
};

export const stateWords = (state) => STATES[state] ?? [state, "", ""];
export const sendingWords = (state) => SENDING[state] ?? state;
export const isBad = (state) => ["failed", "expired", "uncertain"].includes(state);
export const canStart = (session) =>
  !["starting", "pairing", "connecting", "connected", "reconnecting"].includes(session.state);

export function person(jid) {
  if (!jid) return "somebody";
  const [user, server] = jid.split("@");
  const number = user.split(":")[0];
  return server === "s.whatsapp.net" ? `+${number}` : `${number}@${server}`;
}

export function explain(session) {
  const [, , sentence] = stateWords(session.state);
  if (session.state === "connected") return `It is connected as ${person(session.jid)}.`;
  const next = session.next_try_ms ? ` Next try: ${time(session.next_try_ms)}.` : "";
  const known = ["stopped", "pairing", "starting", "connecting"].includes(session.state);
  const cause = session.cause && !known ? ` (${session.cause})` : "";
  return `${sentence}${cause}${next}`;
}

export const time = (ms) =>
  new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export function moment(ms) {
  const date = new Date(ms);
  const day = date.toDateString() === new Date().toDateString() ? "" : date.toLocaleDateString();
  return `${day} ${date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`.trim();
}

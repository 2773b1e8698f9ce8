// The recent messages of one company: what it sent, with states, and what it received.

import { call } from "./api.js";
import { isBad, moment, person, sendingWords } from "./words.js";

const SHOWN = 50;
const LOOK_BACK = 5000; // events of the log that are searched for received messages

export class Messages {
  constructor(list, none) {
    this.list = list;
    this.none = none;
    this.show("");
  }

  show(company) {
    this.company = company;
    this.sent = [];
    this.received = new Map();
    this.render();
  }

  async load() {
    const company = this.company;
    const { last_seq: last } = await call("GET", "/v1/events?limit=1");
    await this.loadSent();
    let after = Math.max(0, last - LOOK_BACK);
    while (after < last && company === this.company) {
      const query = new URLSearchParams({ after, limit: 500, company, type: "message.received" });
      const page = await call("GET", `/v1/events?${query}`);
      for (const event of page.events) this.received.set(event.seq, event);
      after = page.next;
    }
    if (company === this.company) this.render();
  }

  async loadSent() {
    const company = this.company;
    const found = await call("GET", `/v1/sessions/${company}/messages?limit=${SHOWN}`);
    if (company !== this.company) return;
    this.sent = found.messages;
    this.render();
  }

  take(event) {
    this.received.set(event.seq, event);
    this.render();
  }

  render() {
    const mine = this.sent.map((row) => ({
      at: row.created_ms, key: row.id, text: words(row), isMine: true,
      about: `to ${person(row.chat)} · ${moment(row.created_ms)}`,
      state: row.state, reason: row.reason,
    }));
    const theirs = [...this.received.values()].map(({ seq, data }) => ({
      at: data.timestamp_ms, key: `event-${seq}`, isMine: data.from_me,
      text: words(data),
      about: `${data.from_me ? "from the phone" : `from ${sender(data)}`} · ` +
        moment(data.timestamp_ms),
    }));
    const all = [...mine, ...theirs].sort((a, b) => a.at - b.at).slice(-SHOWN).reverse();
    this.list.replaceChildren(...all.map(item));
    this.none.hidden = all.length > 0;
  }
}

function words({ text, content }) {
  return text || `(${content.type ?? content.kind})`;
}

function sender(data) {
  const number = person(data.sender?.jid);
  const name = data.sender?.name;
  return name && name !== number ? `${name} (${number})` : number;
}

function item({ isMine, text, about, state, reason }) {
  const entry = document.createElement("li");
  entry.className = isMine ? "mine" : "theirs";
  const words = document.createElement("p");
  words.textContent = text;
  const line = document.createElement("p");
  line.className = "about";
  line.append(about);
  if (state) {
    const told = document.createElement("span");
    told.className = isBad(state) ? "failed" : "";
    told.textContent = sendingWords(state) + (isBad(state) && reason ? ` (${reason})` : "");
    line.append(" · ", told);
  }
  entry.append(words, line);
  return entry;
}

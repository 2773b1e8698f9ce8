// Follows the log over the WebSocket, and resumes behind the last event it saw: nothing is missed
// while the gateway, the daemon or the network is away.

import { at, call, theKey } from "./api.js";

const FIRST_WAIT = 300;
const LONGEST_WAIT = 8000;
const SILENT_AFTER = 45000; // heartbeats come every 20 s
const UNAUTHENTICATED = 4401;

export class Live {
  // `on`: event(event), state(isUp), gap(), refused()
  constructor(after, on) {
    this.after = after;
    this.on = on;
    this.wait = FIRST_WAIT;
    this.ended = false;
    this.open();
  }

  open() {
    const url = at(`/v1/events?after=${this.after}`);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const key = theKey();
    this.socket = new WebSocket(url, ["whatsappd.v1", ...(key ? [`bearer.${key}`] : [])]);
    this.socket.onmessage = (message) => this.take(JSON.parse(message.data));
    this.socket.onclose = (close) => this.closed(close.code);
    this.listen();
  }

  take(message) {
    this.listen();
    if (message.ready) {
      this.wait = FIRST_WAIT;
      this.on.state(true);
      if (message.ready.gap !== null) this.on.gap();
    } else if (message.gap) {
      this.on.gap();
    } else if (message.event) {
      this.after = message.event.seq;
      this.on.event(message.event);
    }
  }

  listen() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.socket.close(), SILENT_AFTER);
  }

  async closed(code) {
    clearTimeout(this.silence);
    if (this.ended) return;
    this.on.state(false);
    if (code === UNAUTHENTICATED || (await this.isRefused())) {
      if (!this.ended) this.on.refused();
      return;
    }
    if (this.ended) return;
    this.retry = setTimeout(() => this.open(), this.wait * (0.5 + Math.random() / 2));
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
  }

  // A handshake that is refused looks to a script like one that failed: ask in another way.
  async isRefused() {
    try {
      await call("GET", "/v1/events?limit=1");
    } catch (error) {
      if (error.name === "invalid_params") this.after = 0;
      return error.status === 401;
    }
    return false;
  }

  end() {
    this.ended = true;
    clearTimeout(this.retry);
    clearTimeout(this.silence);
    this.socket.close();
  }
}

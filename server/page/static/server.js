// The server that this page came from: its model, and its answers.

import { events } from "./events.js";

// Relative to this file, so that the page also works behind a proxy's prefix.
const API = new URL("../v1/", import.meta.url);
const LOAD = new URL("../load", import.meta.url);

/** An answer that is an error, with the server's message. */
export class ServerError extends Error {
  /** @param {number} status 0 for an error in the middle of a stream. */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** No answer, or an incomplete one. */
export class ConnectionLost extends Error {}

export class Server {
  // In memory only, as long as the tab is open.
  #key = "";
  /** Completions that this page waits for. */
  #waiting = 0;

  /** @param {string} key Sent with every request from now on. */
  useKey(key) {
    this.#key = key;
  }

  /** The served model as `/v1/models` describes it. */
  async model() {
    const response = await this.#fetch("models", {});
    return (await readable(response.json())).data[0];
  }

  /** How many requests of others are being served or wait; 0 where the server does not tell. */
  async othersInFlight() {
    try {
      const { server_load: all } = await (await fetch(LOAD, { cache: "no-store" })).json();
      return Math.max(0, all - this.#waiting);
    } catch {
      return 0;
    }
  }

  /** The chunks of a streamed completion; leaving the loop or `signal` aborts it. */
  async *stream(body, signal) {
    this.#waiting += 1;
    let chunks = null;
    try {
      chunks = events(await this.#post(body, signal));
      for (;;) {
        const { done, value } = await readable(chunks.next());
        if (done) return;
        if (value.error) throw new ServerError(value.error.message, 0);
        yield value;
      }
    } finally {
      this.#waiting -= 1;
      await chunks?.return();
    }
  }

  /** A whole completion. */
  async complete(body, signal) {
    this.#waiting += 1;
    try {
      return await readable((await this.#post(body, signal)).json());
    } finally {
      this.#waiting -= 1;
    }
  }

  #post(body, signal) {
    return this.#fetch("completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
  }

  async #fetch(path, options) {
    const headers = { ...options.headers };
    if (this.#key) headers.Authorization = `Bearer ${this.#key}`;
    const request = fetch(new URL(path, API), { ...options, headers, cache: "no-store" });
    const response = await readable(request);
    if (!response.ok) throw new ServerError(await messageOf(response), response.status);
    return response;
  }
}

/** The result of a network promise; every failure except an abort is a lost connection. */
async function readable(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ConnectionLost(error.message, { cause: error });
  }
}

async function messageOf(response) {
  const text = await readable(response.text());
  try {
    return JSON.parse(text).error.message;
  } catch {
    // From a proxy, or for invalid HTTP: not in the API's shape.
    return `${response.status} ${response.statusText}: ${text.slice(0, 300)}`;
  }
}

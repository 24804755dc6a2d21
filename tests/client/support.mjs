// What the tests put in a browser's place: its cookies and its network, a clock that is turned by hand, and a wait for
// what comes with its own time. The server behind the network is a real one.
import assert from "node:assert/strict";
import { createClient } from "../../src/jotgate/client/v1.js";

export const URL_OF_SERVER = process.env.SERVER_URL;
const PASSWORD = "four plain words in a row";
const WITHIN_MS = +(process.env.WITHIN_MS ?? 20_000); // only a failing test waits so long

/** Events of the page, as the client listens for them. */
export const page = new EventTarget();
globalThis.addEventListener = page.addEventListener.bind(page);
globalThis.removeEventListener = page.removeEventListener.bind(page);

export async function until(holds, what = String(holds)) {
  const deadline = Date.now() + WITHIN_MS;
  while (!holds()) {
    assert.ok(Date.now() < deadline, `never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export class HandClock {
  #ahead = 0;
  #count = 0;
  timers = new Map();

  now = () => Date.now() + this.#ahead;

  setTimeout = (run, ms) => {
    this.timers.set(++this.#count, { run, ms, at: this.now() + ms });
    return this.#count;
  };

  clearTimeout = (timer) => this.timers.delete(timer);

  /** A laptop that sleeps, or somebody who sets the clock: no timer runs. */
  jump(ms) {
    this.#ahead += ms;
  }

  pass(ms) {
    this.jump(ms);
    for (const [id, { run, at }] of [...this.timers]) {
      if (at <= this.now() && this.timers.delete(id)) run();
    }
  }

  isWaiting = (ms) => [...this.timers.values()].some((timer) => timer.ms === ms);
}

/** One browser: its tabs share the cookies. `rules` stand in the way of requests, as networks, proxies and APIs do. */
export class Browser {
  cookies = new Map();
  sent = [];
  rules = [];
  blocksCookies = false;
  isOffline = false;

  fetch = async (input, init = {}) => {
    const url = new URL(input instanceof Request ? input.url : input);
    const request = { path: url.pathname, method: init.method ?? "GET", headers: new Headers(init.headers), init };
    this.sent.push(request);
    if (this.isOffline) throw new TypeError("fetch failed");
    for (const rule of this.rules) {
      const answer = await rule(request);
      if (answer) return answer;
    }
    return this.deliver(request);
  };

  async deliver({ path, headers, init }) {
    const cookies = [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    headers.set("Origin", URL_OF_SERVER);
    if (cookies && init.credentials === "include") headers.set("Cookie", cookies);
    const response = await fetch(URL_OF_SERVER + path, { ...init, headers });
    for (const line of this.blocksCookies ? [] : response.headers.getSetCookie()) {
      const [, name, value, age] = /^([^=]+)=([^;]*); Max-Age=(\d+)/.exec(line);
      if (age === "0") this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
    return response;
  }

  count = (path) => this.sent.filter((request) => request.path === path).length;

  /** For the next `times` requests for the path. */
  rule(path, answer, times = 1) {
    this.rules.push((request) => (request.path === path && times-- > 0 ? answer(request) : undefined));
  }

  /** Holds the answers for a path back until the returned function is called. */
  hold(path) {
    let open;
    const opened = new Promise((resolve) => (open = resolve));
    let asked = false;
    this.rule(path, async (request) => {
      const { status, headers, body } = await this.deliver(request);
      const whole = body && (await new Response(body).arrayBuffer()); // which no abort takes back
      asked = true;
      await opened;
      return new Response(whole, { status, headers });
    });
    return { open, wasAsked: () => asked };
  }
}

/** Answers nothing until the request is given up. */
export const silence = ({ init: { signal } }) =>
  new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason));
  });

export const json = (value, status = 200, headers = {}) => new Response(JSON.stringify(value), { status, headers });

let people = 0;
const open = [];

/** Somebody who has no account yet, on whichever server. */
export const newPerson = () => ({ email: `person${++people}.${process.pid}@shop.example`, password: PASSWORD });

/** A tab of the browser, which hears no others unless it is given a channel; undefined is the usual one. */
export function openTab({ browser = new Browser(), clock = new HandClock(), ...options } = {}) {
  const auth = createClient({ url: URL_OF_SERVER, fetch: browser.fetch, clock, channel: null, ...options });
  open.push(auth);
  return { auth, browser, clock };
}

export function closeTabs() {
  for (const auth of open.splice(0)) auth.close();
}

/** A tab in which somebody new is logged in. */
export async function openLoggedIn(options) {
  const tab = openTab(options);
  await tab.auth.ready;
  const person = newPerson();
  await tab.auth.signup(person);
  await tab.auth.login(person);
  tab.browser.sent.length = 0;
  return { ...tab, person };
}

/** A channel of which the test is all other tabs. */
export function handChannel() {
  const posted = [];
  const channel = { posted, onmessage: null, postMessage: (data) => posted.push(data), close() {} };
  return Object.assign(channel, { say: (data) => channel.onmessage({ data }) });
}

export const rejection = (code, more = {}) => ({ name: "JotgateError", code, ...more });

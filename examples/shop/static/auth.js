// The page's jotgate client, who is logged in, calls of the shop's API, and a log of what went over the wire.

import { createClient, JotgateError } from "/auth/client/v1.js";

const MOST_CALLS = 10;
const TIMEOUT_MS = 15_000;

/** The last requests, newest first: {method, path, status, code, at (ms), ms}. */
export const calls = [];
export const wire = new EventTarget();

const tell = () => wire.dispatchEvent(new Event("call"));

/** The browser's `fetch`, with a line in the log. */
async function watched(input, init) {
  const { pathname, search } = new URL(input.url ?? input, location.href);
  const call = { method: init?.method ?? "GET", path: pathname + search, status: "…", code: "", at: Date.now(), ms: 0 };
  calls.unshift(call);
  calls.length = Math.min(calls.length, MOST_CALLS);
  tell();
  const start = performance.now();
  try {
    const response = await fetch(input, init);
    call.status = response.status;
    if (!response.ok) call.code = (await response.clone().json().catch(() => null))?.code ?? "";
    return response;
  } catch (error) {
    call.status = "no answer";
    throw error;
  } finally {
    call.ms = Math.round(performance.now() - start);
    tell();
  }
}

export const auth = createClient({ url: "/auth", fetch: watched });

const UNREACHABLE = ["unreachable", "The shop does not answer."];

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

async function read(response) {
  const text = await response.text().catch((cause) => {
    if (cause.name === "AbortError") throw cause;
    throw new JotgateError(...UNREACHABLE, { cause });
  });
  const answer = parse(text);
  const { ok, status, headers } = response;
  if (ok && answer) return answer;
  const retryAfterS = Number(headers.get("Retry-After")) || null;
  throw new JotgateError(answer?.code ?? `http_${status}`, answer?.detail ?? "The shop refused that.", {
    status,
    retryAfterS,
  });
}

/** Asks for what everybody may see: no token goes along. */
export async function ask(path, signal = null) {
  const late = AbortSignal.timeout(TIMEOUT_MS);
  try {
    return await read(await watched(path, { signal: signal ? AbortSignal.any([signal, late]) : late }));
  } catch (cause) {
    if (cause instanceof JotgateError || signal?.aborted) throw cause;
    throw new JotgateError(...UNREACHABLE, { cause });
  }
}

/** Asks with the token. */
export const askOwn = async (method, path, body) =>
  read(
    await auth.fetch(path, {
      method,
      headers: body && { "Content-Type": "application/json" },
      body: body && JSON.stringify(body),
    }),
  );

/** Who is logged in. */
export const person = { email: "" };

let asking = null;

/** Learns who is logged in: one request for all who want to know. */
export function meet() {
  asking ??= auth.account().then(
    ({ email }) => {
      if (auth.state.status === "in") person.email = email;
    },
    (error) => {
      asking = null;
      throw error;
    },
  );
  return asking;
}

export function forget() {
  person.email = "";
  asking = null;
}

export const isIn = () => auth.state.status === "in";

export const isStaff = () => auth.state.scopes.includes("stock:write");

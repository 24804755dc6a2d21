// jotgate's client for browsers: no library, no build; types.js says what its names mean.
//
// The access token is in memory and nowhere else, the refresh token in a cookie that no script can read. The server
// decides which refresh counts and whether a session lives; tabs only tell each other, to save requests and to leave
// together.

const TIMEOUT_MS = 30_000;
/** Longer waits than this are the caller's. */
const MAX_WAIT_MS = 10_000;
const MAX_WAITS = 2;
const MAX_PAUSE_MS = 3_600_000;
const MAX_RETRY_MS = 60_000;
/** What the server answers where the session is no more. */
const OVER = ["missing_credential", "invalid_refresh_token", "session_ended", "refresh_reused"];

/** @import { Call, Client, Held, InTurn, Options, Reason, Session, State, Timed } from "./types.js" */

/** Every refusal and failure: `code` is the server's, or one of `LocalCode`. */
export class JotgateError extends Error {
  /**
   * @param {string} code stable, for programs
   * @param {string} detail for people
   * @param {import("./types.js").Told} [told]
   */
  constructor(code, detail, { status = 0, retryAfterS = null, cause } = {}) {
    super(detail, { cause });
    this.name = "JotgateError";
    this.code = code;
    this.detail = detail;
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

const noop = () => {};

/** @param {string} text */
const parse = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
};

/** @param {(AbortSignal | null | undefined)[]} signals */
const either = (...signals) => AbortSignal.any(signals.filter((each) => !!each));

/** @param {unknown} error @returns {error is JotgateError} */
const isOver = (error) => error instanceof JotgateError && error.status === 401 && OVER.includes(error.code);

/**
 * Makes the client of a page: one, at its start.
 *
 * @param {Options} options
 * @returns {Client}
 */
export function createClient({
  url,
  origins = [],
  timeoutMs = TIMEOUT_MS,
  fetch: send = (input, init) => globalThis.fetch(input, init),
  clock = {
    now: () => Date.now(),
    setTimeout: (run, ms) => setTimeout(run, ms),
    clearTimeout: (timer) => clearTimeout(timer),
  },
  channel,
}) {
  const page = globalThis.location?.href;
  const issuer = new URL(url, page).href.replace(/\/+$/, "");
  const trusted = new Set([issuer, page, ...origins].flatMap((each) => (each ? [new URL(each, page).origin] : [])));
  const tabs =
    channel === undefined && globalThis.BroadcastChannel ? new BroadcastChannel(`jotgate ${issuer}`) : channel;
  const changes = new EventTarget();
  const life = new AbortController();

  /** @type {Held | null} */
  let held = null;
  /** @type {State["status"]} */
  let status = "unknown";
  /** @type {Reason} */
  let reason = "start";
  let refreshAt = 0;
  /** How far the server's clock is ahead of this one. */
  let skewMs = 0;
  /** Of the last login or logout in any tab, all of which share a clock: nothing from before it counts. */
  let epoch = 0;
  /** @type {Promise<void> | null} the refresh under way */
  let refreshing = null;
  let stopRefresh = new AbortController();
  /** @type {{ from: number, until: number, error: unknown } | null} the server wants no refresh for now */
  let pausing = null;
  let failures = 0;
  /** @type {string | null} the path of a logout that did not reach the server */
  let owed = null;
  /** @type {Promise<unknown>} what changes the cookie happens one after the other */
  let turn = Promise.resolve();
  /** @type {string | undefined} */
  let currentId;
  let timer = 0;

  const serverNow = () => clock.now() + skewMs;

  /** @returns {State} */
  const state = () => ({
    status,
    reason,
    scopes: held?.scopes ?? [],
    expiresAt: held && held.expiresAt - skewMs,
    refreshAt: held && refreshAt - skewMs,
  });

  /** @type {Timed} */
  const timed = async (run, ms, signal) => {
    const late = new AbortController();
    const ticking = clock.setTimeout(() => late.abort(), ms);
    try {
      return await run(either(late.signal, life.signal, signal));
    } catch (cause) {
      either(life.signal, signal).throwIfAborted();
      if (late.signal.aborted) throw new JotgateError("timeout", "The answer did not come in time.", { cause });
      throw new JotgateError("unreachable", "The server cannot be reached.", { cause });
    } finally {
      clock.clearTimeout(ticking);
    }
  };

  /**
   * Waits, unless it is aborted: then the request that follows says so.
   *
   * @param {number} ms
   * @param {AbortSignal | null} [signal]
   */
  const pause = (ms, signal) =>
    new Promise((resolve) => {
      clock.setTimeout(() => resolve(null), ms);
      either(life.signal, signal).addEventListener("abort", resolve);
    });

  /** @param {Response} response @returns {number | null} how many seconds it asks to wait */
  function retryAfter({ status, headers }) {
    const told = headers.get("Retry-After");
    if (!told || (status !== 429 && status !== 503)) return null;
    const seconds = /^\d+$/.test(told) ? Number(told) : (Date.parse(told) - serverNow()) / 1000;
    return Number.isNaN(seconds) ? null : Math.max(0, seconds);
  }

  /** @type {Call} */
  const call = async (method, path, body, { signal, keepalive } = {}) => {
    for (let waits = 0; ; waits++) {
      const [response, text] = await timed(
        async (within) => {
          const response = await send(issuer + path, {
            method,
            // Another site's page cannot send the first: the proof that this call is ours.
            headers: { "Jotgate-Client": "1", ...(body && { "Content-Type": "application/json" }) },
            body: body && JSON.stringify(body),
            credentials: "include",
            cache: "no-store",
            redirect: "error",
            keepalive,
            signal: within,
          });
          return /** @type {const} */ ([response, await response.text()]);
        },
        timeoutMs,
        signal,
      );
      const date = Date.parse(response.headers.get("Date") ?? "");
      if (date) skewMs = date + 500 - clock.now(); // it has whole seconds
      const answer = parse(text);
      const { ok, status } = response;
      if (ok && (answer || status === 204)) return answer;
      const retryAfterS = retryAfter(response);
      if (retryAfterS === null || retryAfterS * 1000 > MAX_WAIT_MS || waits === MAX_WAITS) {
        const code = answer?.code ?? (ok ? "bad_answer" : `http_${status}`);
        const detail = answer?.detail ?? answer?.title ?? "The server's answer cannot be used.";
        throw new JotgateError(code, detail, { status, retryAfterS });
      }
      await pause(retryAfterS * 1000, signal);
    }
  };

  /** The same for what needs a session, which may turn out to be over. @type {Call} */
  const own = async (method, path, body) => {
    await turn;
    const mine = epoch;
    try {
      return await call(method, path, body);
    } catch (error) {
      if (isOver(error) && mine === epoch && status === "in") over(error);
      throw error;
    }
  };

  const announce = () => changes.dispatchEvent(new Event("change"));

  /** @param {object} message */
  const tell = (message) => tabs?.postMessage({ ...message, epoch, reason });

  const begin = () => {
    epoch = Math.max(epoch + 1, clock.now());
  };

  function dropRefresh() {
    stopRefresh.abort();
    refreshing = null;
  }

  /** @param {number} [ms] */
  function plan(ms) {
    clock.clearTimeout(timer);
    if (life.signal.aborted || (ms === undefined && !held)) return;
    timer = clock.setTimeout(wake, ms ?? Math.max(0, refreshAt - serverNow()));
  }

  /** @param {Held} fresh @param {Reason} why */
  function admit(fresh, why) {
    const life = fresh.expiresAt - fresh.issuedAt;
    // Not all tabs at once: the first one's token does for all.
    refreshAt = fresh.expiresAt - Math.min(life / 5, 60_000) * (1 + Math.random() / 2);
    [held, status, reason, failures, pausing, owed] = [fresh, "in", why, 0, null, null];
    plan();
    announce();
  }

  /** @param {any} answer @param {Reason} why */
  function take(answer, why) {
    const { access_token: token, expires_in: seconds, scope = "" } = answer ?? {};
    if (typeof token !== "string" || !(seconds > 0)) throw new JotgateError("bad_answer", "No token came.");
    const issuedAt = serverNow();
    admit({ token, scopes: scope.split(" ").filter(Boolean), issuedAt, expiresAt: issuedAt + seconds * 1000 }, why);
    tell({ type: "in", held, skewMs });
  }

  /** @param {Reason} why */
  function leave(why) {
    dropRefresh();
    const was = status;
    [held, status, reason, pausing, currentId] = [null, "out", why, null, undefined];
    if (!owed) plan();
    if (was !== "out") announce();
  }

  /** @param {JotgateError} error which says that the session is no more */
  function over(error) {
    const wasIn = status === "in";
    const blocked = wasIn && reason === "login" && error.code === "missing_credential";
    leave(blocked ? "cookies_blocked" : wasIn ? "ended" : "start");
    if (wasIn) tell({ type: "out" }); // in the epoch that it had: a login in another tab is not meant
    if (blocked) {
      const detail = "The browser did not keep the session cookie. Allow cookies for this site, then log in again.";
      throw new JotgateError("cookies_blocked", detail, { status: 401, cause: error });
    }
  }

  function leaveEverywhere() {
    begin();
    leave("logout");
    tell({ type: "out" });
  }

  /** @param {MessageEvent} event */
  function hear({ data }) {
    const isNew = data.epoch > epoch;
    if (!isNew && data.epoch !== epoch) return;
    if (data.type === "out") {
      epoch = data.epoch;
      leave(data.reason);
    } else if (isNew || (status !== "out" && !(held && held.expiresAt >= data.held.expiresAt))) {
      if (isNew) dropRefresh();
      [epoch, skewMs] = [data.epoch, data.skewMs];
      admit(data.held, data.reason);
    }
  }

  /** Plans the next try. @param {unknown} error */
  function putOff(error) {
    const told = error instanceof JotgateError ? error.retryAfterS : null;
    const from = clock.now();
    let ms = Math.min(MAX_RETRY_MS, 1000 * 2 ** failures++) * (0.5 + Math.random() / 2);
    if (told !== null) {
      ms = Math.min(told * 1000, MAX_PAUSE_MS);
      pausing = { from, until: from + ms, error };
    }
    plan(ms);
  }

  /** Gets the next access token: one request for all who ask meanwhile. */
  const refresh = () => (refreshing ??= renew((stopRefresh = new AbortController())));

  /** @param {AbortController} stop */
  async function renew(stop) {
    const { signal } = stop;
    try {
      await turn;
      if (signal.aborted) return;
      const now = clock.now();
      if (pausing && pausing.from <= now && now < pausing.until) {
        plan(pausing.until - now);
        throw pausing.error;
      }
      pausing = null;
      const answer = await call("POST", "/v1/refresh", {}, { signal });
      if (!signal.aborted) take(answer, "refresh");
    } catch (error) {
      if (signal.aborted) return;
      if (isOver(error)) return over(error);
      if (!pausing) putOff(error);
      throw error;
    } finally {
      if (stopRefresh === stop) refreshing = null;
    }
  }

  /** By a clock that may have been asleep, or put back. */
  function isUsable() {
    if (!held) return false;
    const [now, spare] = [serverNow(), Math.min(5000, (held.expiresAt - held.issuedAt) / 10)];
    return held.issuedAt - 5000 <= now && now < held.expiresAt - spare;
  }

  /** Does what is due. */
  function wake() {
    if (life.signal.aborted || globalThis.document?.visibilityState === "hidden") return;
    if (owed) inTurn(settle).catch(noop);
    else if (status === "unknown" || (held && (!isUsable() || serverNow() >= refreshAt))) refresh().catch(noop);
    else plan();
  }

  /** @type {InTurn} */
  const inTurn = (run) => {
    const done = turn.then(run);
    turn = done.then(noop, noop);
    return done;
  };

  /** @param {string} path @param {object} body */
  async function enter(path, body) {
    const done = await inTurn(async () => {
      dropRefresh(); // its cookie must not come after this one's
      const answer = await call("POST", path, body);
      if (answer?.status === "second_factor_required") {
        const { ticket, factors, passkey, expires_in: expiresIn } = answer;
        return { secondFactor: { ticket, factors, passkey, expiresIn } };
      }
      begin();
      take(answer, "login");
      return { secondFactor: null };
    }).finally(() => {
      if (status === "unknown") refresh().catch(noop);
    });
    if (held && globalThis.navigator?.cookieEnabled === false) await refresh();
    return done;
  }

  async function settle() {
    if (!owed) return;
    try {
      await call("POST", owed, {}, { keepalive: true });
    } catch (error) {
      if (!isOver(error)) {
        putOff(error);
        throw error;
      }
    }
    owed = null;
    leaveEverywhere(); // also what another tab got in between
  }

  /** @param {string} path */
  function exit(path) {
    leaveEverywhere();
    return inTurn(() => {
      leaveEverywhere(); // a login that was under way
      owed = path;
      return settle();
    });
  }

  /** @param {string} [refused] a token that is not to be given any more */
  async function current(refused) {
    await turn;
    life.signal.throwIfAborted();
    if (status === "unknown" || (held && (!isUsable() || held.token === refused))) {
      await refresh();
      await turn; // a login that took its place
    } else if (held && serverNow() >= refreshAt) refresh().catch(noop);
    return held && held.token;
  }

  /** @type {[any, string][]} */
  const waking = [
    [globalThis, "online"],
    [globalThis, "focus"],
    [globalThis, "pageshow"],
    [globalThis.document, "visibilitychange"],
  ];
  /** @param {Event} event */
  const onWaking = (event) => {
    // A page out of the back/forward cache has heard nothing since it was left.
    if ("persisted" in event && event.persisted && !owed) refresh().catch(noop);
    else wake();
  };
  for (const [target, type] of waking) target?.addEventListener?.(type, onWaking);
  if (tabs) tabs.onmessage = hear;

  return {
    ready: current().catch(noop).then(state),

    get state() {
      return state();
    },

    signup: ({ email, password }) => call("POST", "/v1/signup", { email, password }),

    login: ({ email, password }) => enter("/v1/login", { email, password }),

    loginSecondFactor: ({ ticket, code, passkey }) => enter("/v1/login/second-factor", { ticket, code, passkey }),

    logout: () => exit("/v1/logout"),

    logoutEverywhere: () => exit("/v1/logout/everywhere"),

    async fetch(input, { timeoutMs: ms = timeoutMs, ...init } = {}) {
      const request = input instanceof Request ? input : null;
      const target = new URL(request?.url ?? String(input), globalThis.document?.baseURI ?? page ?? issuer);
      if (!trusted.has(target.origin)) {
        throw new JotgateError("origin_refused", `${target.origin} is not in \`origins\`: it gets no token.`);
      }
      const method = (init.method ?? request?.method ?? "GET").toUpperCase();
      const safe = method === "GET" || method === "HEAD";
      const body = /** @type {any} */ (init.body ?? (safe || !request || request.body === null ? null : request));
      const once = !!body && (body === request || !!body.getReader || !!body[Symbol.asyncIterator]);
      const signal = init.signal ?? request?.signal;
      let token = await current();
      let renewed = false;
      for (let waits = 0; ; ) {
        const headers = new Headers(init.headers ?? request?.headers);
        if (token) headers.set("Authorization", `Bearer ${token}`);
        const response = await timed(
          (within) => send(request ?? target.href, { ...init, headers, signal: within }),
          ms,
          signal,
        );
        if (response.status === 401 && token && !renewed) {
          const challenge = response.headers.get("WWW-Authenticate");
          if (challenge && !challenge.includes("invalid_token")) return response;
          const next = await current(token).catch((error) => {
            if (error.code === "cookies_blocked") throw error;
          });
          if (once || !next || next === token) return response;
          [token, renewed] = [next, true];
        } else {
          const wait = once || (response.status === 503 && !safe) ? null : retryAfter(response);
          if (wait === null || wait * 1000 > MAX_WAIT_MS || waits++ === MAX_WAITS) return response;
          await pause(wait * 1000, signal);
        }
        response.body?.cancel().catch(noop);
      }
    },

    getToken: () => current(),

    account: () => own("GET", "/v1/account"),

    async sessions() {
      const { sessions } = await own("GET", "/v1/sessions");
      currentId = sessions.find((/** @type {Session} */ each) => each.current)?.id;
      return sessions;
    },

    async revokeSession(id) {
      await own("DELETE", `/v1/sessions/${encodeURIComponent(id)}`, {});
      if (id === currentId) leaveEverywhere();
    },

    on(type, listener) {
      const heard = () => listener(state());
      changes.addEventListener(type, heard);
      return () => changes.removeEventListener(type, heard);
    },

    close() {
      life.abort(new JotgateError("closed", "This client was closed."));
      clock.clearTimeout(timer);
      for (const [target, type] of waking) target?.removeEventListener?.(type, onWaking);
      tabs?.close();
      held = null;
    },
  };
}

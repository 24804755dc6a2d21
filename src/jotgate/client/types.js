// The types of the client's arguments and answers, for checkers and editors: no browser loads this.

/**
 * @typedef {object} Clock
 * @property {() => number} now Unix time in milliseconds
 * @property {(run: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 */

/**
 * @typedef {object} Channel what a BroadcastChannel is to this client.
 * @property {(message: any) => void} postMessage
 * @property {((event: any) => void) | null} onmessage
 * @property {() => void} close
 */

/**
 * @typedef {object} Options
 * @property {string | URL} url the issuer's, such as "/auth"
 * @property {string[]} [origins] where `fetch` may send the token, besides the page's origin and the issuer's
 * @property {number} [timeoutMs] how long an answer may take; 30 s
 * @property {(input: any, init?: RequestInit) => Promise<Response>} [fetch] in place of the browser's
 * @property {Clock} [clock] in place of the browser's
 * @property {Channel | null} [channel] in place of a BroadcastChannel; null for none
 */

/** @typedef {"unreachable" | "timeout" | "bad_answer" | "cookies_blocked" | "origin_refused" | "closed"} LocalCode */

/** @typedef {"start" | "login" | "refresh" | "logout" | "ended" | "cookies_blocked"} Reason */

/**
 * @typedef {object} State
 * @property {"in" | "out" | "unknown"} status unknown: the server could not be asked yet
 * @property {Reason} reason what made it so
 * @property {string[]} scopes
 * @property {number | null} expiresAt when the access token ends: Unix time in milliseconds, by this machine's clock
 * @property {number | null} refreshAt when the next one is asked for
 */

/** @typedef {{ id: string, email: string, scopes: string[], created_at: number }} Account */

/**
 * @typedef {object} Session one of the account's; times are Unix seconds.
 * @property {string} id
 * @property {boolean} current
 * @property {string} device
 * @property {string} address
 * @property {string[]} methods
 * @property {number} auth_time
 * @property {number} created_at
 * @property {number} seen_at
 * @property {number} idle_ends_at
 * @property {number} ends_at
 */

/**
 * @typedef {object} SecondFactor what `loginSecondFactor` needs
 * @property {string} ticket
 * @property {string[]} factors of `passkey`, `totp` and `recovery_code`
 * @property {object} [passkey] for `PublicKeyCredential.parseRequestOptionsFromJSON`
 * @property {number} expiresIn seconds
 */

/**
 * @typedef {object} Held an access token; times in milliseconds by the server's clock.
 * @property {string} token
 * @property {string[]} scopes
 * @property {number} issuedAt
 * @property {number} expiresAt
 */

/** @typedef {{ status?: number, retryAfterS?: number | null, cause?: unknown }} Told `status`: 0 where there was no answer */

/**
 * Runs a request. The time-out ends with it; the caller's signal goes on into the body of the answer.
 *
 * @typedef {<T>(run: (signal: AbortSignal) => Promise<T>, ms: number, signal?: AbortSignal | null) => Promise<T>} Timed
 */

/**
 * Asks the auth server, with the cookie, and waits where it says so.
 *
 * @typedef {(method: string, path: string, body?: object, more?: { signal?: AbortSignal, keepalive?: boolean }) => Promise<any>} Call
 */

/** @typedef {<T>(run: () => Promise<T>) => Promise<T>} InTurn */

/**
 * @typedef {object} Client
 * @property {Promise<State>} ready resolves when it is known whether there is a session, or that nobody can say now
 * @property {State} state how things stand now
 * @property {(input: { email: string, password: string }) => Promise<{ account?: Account, status?: "look_into_your_mail" }>} signup
 *   makes an account; with `status` in the answer, the link in a mail makes it. Nobody is logged in by it
 * @property {(input: { email: string, password: string }) => Promise<{ secondFactor: SecondFactor | null }>} login
 *   with a `secondFactor` in the result, `loginSecondFactor` has to follow
 * @property {(input: { ticket: string, code?: string, passkey?: object }) => Promise<{ secondFactor: SecondFactor | null }>} loginSecondFactor
 *   `code`: an app's, or a recovery code; `passkey`: what the browser's passkey answered
 * @property {() => Promise<void>} logout logs out, in all tabs. Rejects where the server does not hear of it: it is told as
 *   soon as that can be, if the page stays open
 * @property {() => Promise<void>} logoutEverywhere the same, and ends all other sessions of the account
 * @property {(input: string | URL | Request, init?: RequestInit & { timeoutMs?: number }) => Promise<Response>} fetch
 *   the browser's `fetch` with the access token; without one where nobody is logged in. A token that is refused is renewed
 *   and the request sent once more; so is what was answered with 429, or a GET with 503, after the time asked for, up to
 *   10 s, twice. Bodies that are streams are sent once. `timeoutMs`: until the answer begins
 * @property {() => Promise<string | null>} getToken the access token, in its time; null where nobody is logged in
 * @property {() => Promise<Account>} account
 * @property {() => Promise<Session[]>} sessions the account's live sessions
 * @property {(id: string) => Promise<void>} revokeSession ends one of them
 * @property {(type: "change", listener: (state: State) => void) => () => void} on calls the listener with each new state,
 *   whichever tab made it; returns what ends that
 * @property {() => void} close ends the client, not the session
 */

export {};

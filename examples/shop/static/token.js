// The drawer that shows what the page holds: the token and its parts, its time, the sessions, the last requests.

import { askOwn, auth, calls, isIn, wire } from "./auth.js";
import { $, h, moment } from "./dom.js";
import { attempt, say } from "./messages.js";

const MEANINGS = {
  typ: "What kind of token this is: an access token (RFC 9068).",
  alg: "How it is signed.",
  kid: "Which of the issuer’s published keys checks the signature.",
  iss: "Who issued it. The API takes tokens of no one else.",
  sub: "Whose it is: an account’s id, no name and no address.",
  aud: "Which API it is for. Any other one refuses it.",
  exp: "When it ends, and is refused from then on.",
  iat: "When it was issued.",
  jti: "Its own id: no other token of this issuer has it.",
  client_id: "Which app asked for it.",
  scope: "What it may do. The API asks each route’s scope of it.",
  sid: "Which session it belongs to. When that one is revoked, so is this token.",
  auth_time: "When the person last proved who they are.",
  acr: "How sure the issuer is: aal1 by one factor, aal2 by two.",
  amr: "By what they proved it: pwd is a password, otp an app’s code, mfa several.",
  bytes: "How long it is. Only the holder of the private key can make one.",
};
const TIMES = ["exp", "iat", "auth_time"];

const bytesOf = (part) => Uint8Array.from(atob(part.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));

const decode = (part) => JSON.parse(new TextDecoder().decode(bytesOf(part)));

let lifetimeMs = 1;

function describe(list, members) {
  const entries = Object.entries(members).map(([name, value]) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    const at = TIMES.includes(name) ? ` Here: ${new Date(value * 1000).toLocaleTimeString()}.` : "";
    return h("div", {}, h("dt", {}, name), h("dd", {}, h("code", {}, text), h("small", {}, (MEANINGS[name] ?? "") + at)));
  });
  list.replaceChildren(...entries);
}

const clock = (ms) => {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
};

function tick() {
  const { expiresAt, refreshAt } = auth.state;
  if ($("held").hidden || !expiresAt) return;
  const left = expiresAt - Date.now();
  $("left").max = lifetimeMs;
  $("left").value = Math.max(0, left);
  $("left-text").textContent =
    left > 0
      ? `Good for ${clock(left)}. The next one is fetched in ${clock(refreshAt - Date.now())}.`
      : "It has ended. The next call fetches another one.";
}

/** Shows the token that the page holds now; nothing of one where it holds none. */
export async function showToken() {
  const token = isIn() ? await auth.getToken().catch(() => null) : null;
  if (!token || !isIn()) {
    hideToken();
    return;
  }
  const parts = token.split(".");
  const payload = decode(parts[1]);
  lifetimeMs = (payload.exp - payload.iat) * 1000;
  document.querySelectorAll("#raw span").forEach((span, index) => {
    span.textContent = parts[index];
  });
  describe($("token-header"), decode(parts[0]));
  describe($("token-payload"), payload);
  describe($("token-signature"), { bytes: bytesOf(parts[2]).length });
  $("held").hidden = false;
  $("no-token").hidden = true;
  tick();
}

/** Leaves nothing of it in the page. */
export function hideToken() {
  for (const each of document.querySelectorAll("#raw span, #token dl, #left-text, #sessions")) each.replaceChildren();
  $("held").hidden = true;
  $("no-token").hidden = false;
}

export function forgetCalls() {
  calls.length = 0;
  showCalls();
}

function session(each) {
  const revoke = (event) =>
    attempt(async () => {
      await auth.revokeSession(each.id);
      say(each.current ? "You are logged out." : "That session is over: its tokens are refused from now on.");
      await loadSessions();
      $("sessions-title").focus();
    }, event.target);
  return h(
    "li",
    {},
    h("span", {}, each.current ? `${each.device} (this one)` : each.device),
    h("small", {}, `${each.address}, last seen ${moment(each.seen_at)}`),
    h("button", { type: "button", class: "quiet", "aria-label": `Revoke: ${each.device}`, onclick: revoke }, "Revoke"),
  );
}

async function loadSessions() {
  const sessions = isIn() ? await auth.sessions() : [];
  $("sessions").replaceChildren(...(isIn() ? sessions.map(session) : []));
}

/** Shows the sessions, if anybody looks. */
export const showSessions = () => ($("token").hidden ? null : attempt(loadSessions));

function showCalls() {
  $("calls").replaceChildren(
    ...calls.map(({ method, path, status, code, at, ms }) =>
      h(
        "li",
        { class: status >= 200 && status < 300 ? "went" : "refused" },
        h("time", {}, new Date(at).toLocaleTimeString("en-GB")),
        h("small", {}, `${ms} ms`),
        h("b", {}, `${status} ${code}`.trim()),
        h("code", {}, `${method} ${path}`),
      ),
    ),
  );
}

function open(isOpen) {
  $("token").hidden = !isOpen;
  document.body.classList.toggle("with-token", isOpen);
  $("open-token").setAttribute("aria-expanded", String(isOpen));
  if (!isOpen) {
    $("open-token").focus();
    return;
  }
  $("token-title").focus();
  if (isIn()) showSessions();
}

async function callApi() {
  await askOwn("GET", "/api/orders");
  say("The API has checked the token, and answered.");
}

$("open-token").addEventListener("click", () => open($("token").hidden));
$("close-token").addEventListener("click", () => open(false));
$("token").addEventListener("keydown", (event) => {
  if (event.key === "Escape") open(false);
});
$("load-sessions").addEventListener("click", (event) => attempt(loadSessions, event.target));
$("call").addEventListener("click", (event) => attempt(callApi, event.target));
wire.addEventListener("call", showCalls);
setInterval(tick, 1000);

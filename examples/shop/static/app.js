// The shop's page: which view is shown, and what changes when somebody logs in or out, in this tab or in another one.
//
// It needs no library and no build. The access token is in the jotgate client's memory and nowhere else.

import { auth, forget, isIn, meet, person } from "./auth.js";
import { cart, empty } from "./cart.js";
import { $ } from "./dom.js";
import { enter, whereNext } from "./enter.js";
import { COOKIES_BLOCKED, ENDED, OFFLINE, arrive, attempt, say } from "./messages.js";
import { orders } from "./orders.js";
import { product, shelf } from "./shelf.js";
import { forgetCalls, hideToken, showSessions, showToken } from "./token.js";

const VIEWS = { "": shelf, product, cart, orders, enter };

let leaving = new AbortController(); // of the view that is shown
let wasIn = false;

/** Shows what the address says. @returns when it is all there */
function show() {
  const [name, id] = location.hash.replace(/^#\/?/, "").split("/");
  if (name === "enter" && isIn()) {
    location.replace(whereNext());
    return null;
  }
  leaving.abort(new DOMException("The person has gone on.", "AbortError"));
  leaving = new AbortController();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  return (Object.hasOwn(VIEWS, name) ? VIEWS[name] : shelf)($("view"), leaving.signal, id);
}

function showPerson() {
  $("who").textContent = person.email;
  $("who").hidden = !person.email;
  $("logout").hidden = !isIn();
  $("to-enter").hidden = auth.state.status !== "out";
}

/** Leaves nothing private in the page: it may be kept, and shown again when somebody goes back. */
function clear() {
  forget();
  empty();
  hideToken();
  showPerson();
  $("view").replaceChildren();
}

const REASONS = { ended: [ENDED, "error"], cookies_blocked: [COOKIES_BLOCKED, "error"], logout: ["You are logged out."] };

function onChange({ status, reason }) {
  const isNow = status === "in";
  // Another tab may have logged in somebody else.
  const isNews = wasIn !== isNow || (wasIn && reason === "login");
  if (isNews && wasIn) clear();
  wasIn = isNow;
  showPerson();
  showToken();
  if (!isNews) return;
  show();
  if (isNow) {
    meet().then(showPerson, () => {}); // whoever it is, they are logged in
    showSessions();
  } else if (REASONS[reason]) say(...REASONS[reason]);
}

async function onMove() {
  scrollTo(0, 0);
  const shown = show();
  arrive();
  focusTitle();
  await shown;
  if (document.activeElement === document.body) focusTitle(); // the view has put another one there
}

const focusTitle = () => document.querySelector("h1")?.focus({ preventScroll: true });

addEventListener("hashchange", onMove);
addEventListener("pagehide", () => {
  clear();
  forgetCalls();
  wasIn = false;
});
addEventListener("pageshow", ({ persisted }) => {
  if (persisted) location.reload(); // out of the browser's cache: begin anew, as whoever is logged in now
});
addEventListener("offline", () => say(OFFLINE, "error"));
addEventListener("online", () => {
  say("You are online again.");
  show();
});
$("logout").addEventListener("click", ({ target }) => attempt(() => auth.logout(), target));
auth.on("change", onChange);

show();
await auth.ready;
showPerson();

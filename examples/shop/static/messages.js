// The one place where the page speaks: what became of an action, and why something did not work, in plain words.

import { auth } from "./auth.js";
import { $ } from "./dom.js";

export const ENDED = "Your session has ended. Please log in again.";
export const COOKIES_BLOCKED =
  "Your browser keeps no cookies for this shop, so you cannot stay logged in. Please allow them, then log in again.";
export const OFFLINE = "You are offline. The shop goes on when the network is back.";

const WORDS = {
  unreachable: "The shop does not answer. Is it still running?",
  timeout: "The shop takes too long to answer. Please try again.",
  cookies_blocked: COOKIES_BLOCKED,
  invalid_credentials: "That e-mail address and that password do not belong together.",
  email_taken: "There is an account with this address already. Log in instead.",
  out_of_stock: "Somebody was quicker: there are not so many left. Please look at your cart.",
  insufficient_scope: "Your account may not do that.",
};

export function say(words, kind = "done") {
  $("message").textContent = words;
  $("message").dataset.kind = kind;
}

let onArrival = "";

/** Goes to another view, and says something there. */
export function go(hash, words) {
  onArrival = words;
  location.hash = hash;
}

/** Says what is to be said in a view that is shown now. */
export function arrive() {
  say(onArrival);
  onArrival = "";
}

function wordsOf({ code, status, retryAfterS, message }) {
  const wait = retryAfterS ? `in ${retryAfterS} second${retryAfterS === 1 ? "" : "s"}` : "in a moment";
  if (!navigator.onLine) return OFFLINE;
  if (status === 429) return `That was a lot at once. Please try again ${wait}.`;
  if (status === 503) return `The shop is busy. Please try again ${wait}.`;
  if (WORDS[code]) return WORDS[code];
  if (status === 401 && auth.state.status !== "in") return auth.state.reason === "ended" ? ENDED : "Please log in first.";
  return message;
}

/** Runs something, if by a control then once at a time, and says what went wrong. @returns whether nothing did */
export async function attempt(action, control) {
  if (control?.ariaBusy === "true") return false; // disabling it would lose the focus
  if (control) {
    control.ariaBusy = "true";
    say("");
  }
  try {
    await action();
    return true;
  } catch (error) {
    if (error.name === "AbortError") return false; // the person has gone on meanwhile
    if (error.name !== "JotgateError") throw error;
    say(wordsOf(error), "error");
    return false;
  } finally {
    if (control) control.ariaBusy = "false";
  }
}

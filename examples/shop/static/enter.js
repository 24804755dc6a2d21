// Logging in and signing up, with the code of a second factor where the account asks for one.

import { auth, isIn, meet } from "./auth.js";
import { hasLines } from "./cart.js";
import { h, title } from "./dom.js";
import { attempt, say } from "./messages.js";

/** Where to go from here: on with what one came for. */
export const whereNext = () => (hasLines() ? "#/cart" : "#/");

/** Says it once it is sure: a browser that blocks cookies is found out by the next request. */
async function welcome(words) {
  await meet();
  if (isIn()) say(words);
}

function secondFactor(view, { ticket }) {
  const code = h("input", { id: "code", autocomplete: "one-time-code", required: true, maxlength: "64", spellcheck: "false" });
  const button = h("button", { type: "submit" }, "Go on");
  const send = async () => {
    const { secondFactor: next } = await auth.loginSecondFactor({ ticket, code: code.value.trim() });
    if (next) secondFactor(view, next);
    else await welcome("Welcome back.");
  };
  const form = h(
    "form",
    {
      class: "sheet",
      onsubmit: (event) => {
        event.preventDefault();
        attempt(send, button);
      },
    },
    h("label", { for: "code" }, "Code of your authenticator app, or a recovery code"),
    code,
    button,
  );
  view.replaceChildren(title("One more step"), form);
  code.focus();
}

export function enter(view) {
  const email = h("input", { id: "email", type: "email", autocomplete: "username", required: true, maxlength: "254" });
  const password = h("input", { id: "password", required: true, "aria-describedby": "password-hint" });
  const hint = h("p", { id: "password-hint", class: "hint" });
  const button = h("button", { type: "submit" });
  const reveal = h("button", { type: "button", class: "quiet", "aria-controls": "password" }, "Show");
  let isNew = false;

  function showWay(wantsNew) {
    isNew = wantsNew;
    button.textContent = isNew ? "Sign up" : "Log in";
    password.autocomplete = isNew ? "new-password" : "current-password";
    hint.textContent = isNew
      ? "At least 15 characters. A few words in a row do well."
      : "The demo accounts’ passwords are printed in your terminal.";
  }

  function showPassword(shown) {
    password.type = shown ? "text" : "password";
    reveal.setAttribute("aria-pressed", String(shown));
    reveal.textContent = shown ? "Hide" : "Show";
  }

  async function send() {
    const credentials = { email: email.value, password: password.value };
    const isFirst = isNew;
    if (isFirst && (await auth.signup(credentials)).status) {
      say("Look into your mail: a link there makes your account.");
      return;
    }
    const { secondFactor: asked } = await auth.login(credentials);
    if (asked) secondFactor(view, asked);
    else await welcome(isFirst ? "Welcome. Your account is ready." : "Welcome back.");
  }

  const way = (words, wantsNew) =>
    h(
      "label",
      {},
      h("input", { type: "radio", name: "way", checked: !wantsNew, onchange: () => showWay(wantsNew) }),
      h("span", {}, words),
    );
  const form = h(
    "form",
    {
      class: "sheet",
      onsubmit: (event) => {
        event.preventDefault();
        showPassword(false); // browsers offer to keep what is a password then
        attempt(send, button);
      },
    },
    h(
      "fieldset",
      { class: "choice" },
      h("legend", { class: "unseen" }, "What would you like to do?"),
      way("Log in", false),
      way("Sign up", true),
    ),
    h("label", { for: "email" }, "E-mail address"),
    email,
    h("label", { for: "password" }, "Password"),
    h("div", { class: "row" }, password, reveal),
    hint,
    button,
    h(
      "p",
      { class: "links" },
      h("a", { href: "/auth/login?return_to=/" }, "Use a passkey"),
      h("a", { href: "/auth/password/forgot" }, "Forgotten your password?"),
    ),
  );
  reveal.addEventListener("click", () => showPassword(password.type === "password"));
  showPassword(false);
  showWay(false);
  view.replaceChildren(title("Come in"), form);
}

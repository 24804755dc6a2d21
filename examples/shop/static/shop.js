// The shop's page: signs up, logs in, shows the own token, orders, refreshes and logs out. It needs no library and no
// build. The access token lives in the variable `session` and nowhere else; the refresh token is in a cookie that no
// script can read, so a reload begins by asking the auth server for a new access token.

const $ = (id) => document.getElementById(id);

/** An answer that is not a success. `code` is the stable code of the problem+json body. */
class Refused extends Error {
  constructor(status, code, detail) {
    super(detail || "The shop refused that.");
    this.status = status;
    this.code = code;
  }
}

let session = null; // {token, expiresAt (ms), lifetime (s), email}
let refreshing = null; // the refresh under way, so that two calls never start two
let products = new Map();

// --- talking to the server ------------------------------------------------------------------------------------------

async function call(method, path, { body, token, auth = false } = {}) {
  const headers = { Accept: "application/json" };
  if (auth) headers["Jotgate-Client"] = "1"; // a foreign page cannot send it: the proof that this call is ours
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch {
    note(method, path, "no answer");
    throw new Refused(0, "unreachable");
  }
  const answer = response.status === 204 ? null : await response.json().catch(() => null);
  note(method, path, response.status, response.ok ? "" : answer?.code);
  if (!response.ok) throw new Refused(response.status, answer?.code, answer?.detail);
  return answer;
}

const authenticate = (path, body) => call("POST", `/auth/v1/${path}`, { body, auth: true });

/** Calls the shop's API as the person who is logged in. A token that is refused is refreshed, once. */
async function api(method, path, body) {
  try {
    return await call(method, path, { body, token: session?.token });
  } catch (refused) {
    if (refused.status !== 401 || !session) throw refused;
    await refresh();
    return call(method, path, { body, token: session.token });
  }
}

function refresh() {
  refreshing ??= authenticate("refresh", {})
    .then((answer) => admit(answer, session?.email))
    .finally(() => {
      refreshing = null;
    });
  return refreshing;
}

function admit(answer, email) {
  session = {
    token: answer.access_token,
    lifetime: answer.expires_in,
    expiresAt: Date.now() + answer.expires_in * 1000, // by this machine's clock, which may differ from the server's
    email,
  };
  showSession();
}

// --- what a person does ---------------------------------------------------------------------------------------------

async function enter(event) {
  event.preventDefault();
  const form = event.target;
  const credentials = { email: form.email.value, password: form.password.value };
  const isNew = form.way.value === "signup";
  if (isNew) await authenticate("signup", credentials);
  admit(await authenticate("login", credentials), credentials.email);
  form.reset();
  showWay();
  say(isNew ? "Welcome. Your account is ready." : "Welcome back.");
  $("session-title").focus();
  await showOrders();
}

async function order(product, form) {
  const quantity = Number(form.quantity.value);
  await api("POST", "/api/orders", { product: product.id, quantity });
  form.reset();
  say(`Ordered: ${quantity} × ${product.name}.`);
  await showOrders();
}

async function renew() {
  await refresh();
  say("A new token, the same session.");
}

/** Logs out, and then shows that the token from before is worth nothing although its time is not up. */
async function leave() {
  const token = session.token;
  await authenticate("logout", {});
  shut();
  say("You are logged out.");
  try {
    await call("GET", "/api/orders", { token });
  } catch (refused) {
    if (refused.status !== 401) throw refused;
    $("refusal-story").textContent =
      "Your token from before is not past its end yet. The page has just shown it to the API once more, and the API said:";
    $("refusal-answer").textContent = `GET /api/orders\n${refused.status} ${refused.code}`;
    $("refusal").hidden = false;
    $("refusal-title").focus();
  }
}

/** After a reload: the cookie, if there is one, brings the session back. */
async function restore() {
  try {
    await refresh();
  } catch (refused) {
    if (refused.status === 401) return; // nobody is logged in, which is no mistake
    throw refused;
  }
  const account = await call("GET", "/auth/v1/account", { token: session.token, auth: true });
  session.email = account.email;
  showSession();
  await showOrders();
}

// --- showing --------------------------------------------------------------------------------------------------------

const PLAIN_WORDS = {
  unreachable: "The shop does not answer. Is it still running?",
  invalid_credentials: "That e-mail address and that password do not belong together.",
  email_taken: "There is an account with this address already. Log in instead.",
  session_ended: "Your session has ended. Please log in again.",
  missing_credential: "Please log in first.",
  busy: "There is a crowd at the door. Please try again in a moment.",
};

function say(words, kind = "done") {
  $("message").textContent = words;
  $("message").dataset.kind = kind;
}

/** Runs what a person asked for; a refusal becomes a sentence, and a session that is over is put away. */
async function attempt(action, control) {
  if (control?.ariaBusy === "true") return; // pressed twice: once is enough (disabling it would lose the focus)
  if (control) control.ariaBusy = "true";
  say("");
  try {
    await action();
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    const isOver = refused.status === 401 && session !== null; // even a refresh was refused
    if (isOver) shut();
    say(isOver ? PLAIN_WORDS.session_ended : (PLAIN_WORDS[refused.code] ?? refused.message), "error");
  } finally {
    if (control) control.ariaBusy = "false";
  }
}

function shut() {
  session = null;
  $("session").hidden = $("token").hidden = true;
  $("door").hidden = $("how").hidden = false;
  $("order-list").replaceChildren();
  $("no-orders").textContent = "Log in to see them: the API shows you yours and nobody else’s.";
  $("no-orders").hidden = false;
  for (const part of document.querySelectorAll("#raw span, #token dl")) part.replaceChildren();
}

function showSession() {
  $("door").hidden = $("how").hidden = $("refusal").hidden = true;
  $("session").hidden = $("token").hidden = false;
  $("who").textContent = session.email ?? "";
  const parts = session.token.split(".");
  document.querySelectorAll("#raw span").forEach((span, index) => {
    span.textContent = parts[index];
  });
  describe($("token-header"), decode(parts[0]));
  describe($("token-payload"), decode(parts[1]));
  describe($("token-signature"), { bytes: bytesOf(parts[2]).length });
  tick();
}

const MEANINGS = {
  typ: "what kind of token it is",
  alg: "how it is signed",
  kid: "which key signed it",
  iss: "who issued it",
  sub: "whose it is: an id, no name",
  aud: "which API it is for",
  client_id: "which app asked for it",
  scope: "what it may do",
  sid: "which session it is of",
  jti: "this token’s own id",
  auth_time: "password given at",
  iat: "issued at",
  exp: "ends at",
  bytes: "only the private key can make them",
};

function describe(list, members) {
  list.replaceChildren(
    ...Object.entries(members).flatMap(([name, value]) => {
      const isTime = ["auth_time", "iat", "exp"].includes(name);
      const meaning = `${MEANINGS[name] ?? ""} ${isTime ? new Date(value * 1000).toLocaleTimeString() : ""}`;
      return [
        element("dt", name),
        element("dd", element("code", typeof value === "string" ? value : JSON.stringify(value)), element("small", meaning)),
      ];
    }),
  );
}

function tick() {
  if (!session) return;
  const left = Math.max(0, Math.ceil((session.expiresAt - Date.now()) / 1000));
  $("left").max = session.lifetime;
  $("left").value = left;
  const clock = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  $("left-text").textContent = left ? `Token good for ${clock}` : "Token expired. The next call fetches a new one.";
}

async function showProducts() {
  const answer = await call("GET", "/api/products");
  products = new Map(answer.products.map((product) => [product.id, product]));
  $("products").replaceChildren(
    ...answer.products.map((product) => {
      const item = $("product").content.cloneNode(true);
      item.querySelector("use").setAttribute("href", `#${product.id}`);
      item.querySelector("h3").textContent = product.name;
      item.querySelector(".hint").textContent = product.detail;
      item.querySelector(".price").textContent = money(product.price_cents);
      item.querySelector(".unseen").textContent = `How many: ${product.name}`;
      item.querySelector("button").setAttribute("aria-label", `Order: ${product.name}`);
      const form = item.querySelector("form");
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        attempt(() => order(product, form), form.querySelector("button"));
      });
      return item;
    }),
  );
}

async function showOrders() {
  const { orders } = await api("GET", "/api/orders");
  $("no-orders").textContent = "None yet. The shelf is well stocked.";
  $("no-orders").hidden = orders.length > 0;
  $("order-list").replaceChildren(
    ...orders.map((entry) =>
      element(
        "li",
        element("span", `${entry.quantity} × ${products.get(entry.product)?.name ?? entry.product}`),
        element("time", new Date(entry.ordered_at * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })),
        element("b", money(entry.total_cents)),
      ),
    ),
  );
}

function note(method, path, status, code) {
  const entry = element("li", element("code", `${method} ${path}`), element("b", String(status)), element("span", code ?? ""));
  entry.className = status >= 200 && status < 300 ? "went" : "refused";
  $("call-list").prepend(entry);
  while ($("call-list").children.length > 8) $("call-list").lastChild.remove();
}

function showWay() {
  const isNew = $("credentials").way.value === "signup";
  $("enter").textContent = isNew ? "Sign up" : "Log in";
  $("password").autocomplete = isNew ? "new-password" : "current-password";
  $("password-hint").textContent = isNew
    ? "At least 15 characters. A few words in a row do well."
    : "The demo account’s password is printed in your terminal.";
}

function reveal() {
  const isShown = $("password").type === "text";
  $("password").type = isShown ? "password" : "text";
  $("reveal").textContent = isShown ? "Show" : "Hide";
  $("reveal").setAttribute("aria-pressed", String(!isShown));
}

// --- small things ---------------------------------------------------------------------------------------------------

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

const money = (cents) => new Intl.NumberFormat("en", { style: "currency", currency: "EUR" }).format(cents / 100);

const bytesOf = (part) => Uint8Array.from(atob(part.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));

const decode = (part) => JSON.parse(new TextDecoder().decode(bytesOf(part)));

$("credentials").addEventListener("submit", (event) => attempt(() => enter(event), $("enter")));
$("credentials").addEventListener("change", showWay);
$("reveal").addEventListener("click", reveal);
$("refresh").addEventListener("click", () => attempt(renew, $("refresh")));
$("logout").addEventListener("click", () => attempt(leave, $("logout")));
setInterval(tick, 1000);

await attempt(async () => {
  await showProducts();
  await restore();
});

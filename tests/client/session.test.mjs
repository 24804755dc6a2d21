// The session: from the login to the end, over reloads, and whatever comes between.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { afterEach, test } from "node:test";
import { JotgateError } from "../../src/jotgate/client/v1.js";
import { Browser, URL_OF_SERVER, closeTabs, json, newPerson, openLoggedIn, openTab, rejection, until } from "./support.mjs";

afterEach(closeTabs);

test("a session is made, kept over a reload, and ended", async () => {
  const first = openTab();
  const { browser } = first;
  assert.deepEqual(await first.auth.ready, {
    status: "out",
    reason: "start",
    scopes: [],
    expiresAt: null,
    refreshAt: null,
  });
  const person = newPerson();
  assert.equal((await first.auth.signup(person)).account.email, person.email);
  assert.equal(await first.auth.getToken(), null);
  assert.deepEqual(await first.auth.login(person), { secondFactor: null });
  assert.equal((await first.auth.account()).email, person.email);
  const answer = await first.auth.fetch(`${URL_OF_SERVER}/v1/account`);
  assert.equal((await answer.json()).email, person.email);

  const second = openTab({ browser });
  const { status, reason, scopes } = await second.auth.ready;
  assert.deepEqual([status, reason, scopes], ["in", "refresh", ["account:read"]]);
  await second.auth.logout();
  assert.equal(second.auth.state.status, "out");
  assert.equal(await second.auth.getToken(), null);
  assert.equal((await openTab({ browser }).auth.ready).status, "out");
});

test("the refresh token is never shown to the page, and the access token to no cookie", async () => {
  const { auth, browser } = await openLoggedIn();
  const token = await auth.getToken();
  for (const value of browser.cookies.values()) assert.ok(!value.includes(token));
  assert.ok(browser.sent.every(({ path }) => !path.includes(token)));
});

test("a refusal is one class with the server's code", async () => {
  const { auth, person } = await openLoggedIn();
  await assert.rejects(auth.login({ ...person, password: "not the right one" }), (error) => {
    assert.ok(error instanceof JotgateError);
    assert.deepEqual([error.code, error.status, error.retryAfterS], ["invalid_credentials", 401, null]);
    assert.equal(error.message, error.detail);
    return true;
  });
  assert.equal(auth.state.status, "in"); // the session from before is still there
  await assert.rejects(auth.signup(person), rejection("email_taken", { status: 409 }));
});

test("a failed login while the page asks for its session leaves that session", async () => {
  const { browser, person } = await openLoggedIn();
  const reloaded = openTab({ browser });
  await assert.rejects(reloaded.auth.login({ ...person, password: "not the right one" }));
  await until(() => reloaded.auth.state.status === "in");
});

test("a sign-up by mail, and a login that asks for a second factor, say what follows", async () => {
  const { auth, browser, person } = await openLoggedIn();
  browser.rule("/v1/signup", () => json({ status: "look_into_your_mail" }, 202));
  assert.deepEqual(await auth.signup(person), { status: "look_into_your_mail" });

  await auth.logout();
  const factors = ["totp", "recovery_code", "passkey"];
  browser.rule("/v1/login", () => json({ status: "second_factor_required", ticket: "t", expires_in: 300, factors }, 202));
  assert.deepEqual(await auth.login(person), {
    secondFactor: { ticket: "t", factors, passkey: undefined, expiresIn: 300 },
  });
  assert.equal(auth.state.status, "out");
  const asked = [];
  const answer = ({ init }) => {
    asked.push(JSON.parse(init.body));
    return json({ access_token: "a.b.c", token_type: "Bearer", expires_in: 300, scope: "a b" });
  };
  browser.rule("/v1/login/second-factor", answer, 2);
  assert.deepEqual(await auth.loginSecondFactor({ ticket: "t", code: "123456" }), { secondFactor: null });
  assert.deepEqual([auth.state.status, auth.state.scopes], ["in", ["a", "b"]]);
  await auth.loginSecondFactor({ ticket: "t", passkey: { id: "k" } });
  assert.deepEqual(asked, [
    { ticket: "t", code: "123456" },
    { ticket: "t", passkey: { id: "k" } },
  ]);
});

// RFC 6238, as an authenticator app does it.
function codeOf(secret) {
  const bits = [...secret].map((each) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(each).toString(2).padStart(5, "0"));
  const key = Buffer.from(bits.join("").match(/.{8}/g).map((each) => parseInt(each, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const mac = createHmac("sha1", key).update(step).digest();
  return String((mac.readUInt32BE(mac[19] & 15) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

test("a login with a real second factor", async () => {
  const { auth, browser, person } = await openLoggedIn();
  const post = (path, body) =>
    browser.fetch(URL_OF_SERVER + path, {
      method: "POST",
      headers: { "Jotgate-Client": "1", "Content-Type": "application/json" },
      credentials: "include",
      body: JSON.stringify(body),
    });
  const { secret } = await (await post("/v1/factors/totp", { current_password: person.password })).json();
  const done = await (await post("/v1/factors/totp/confirm", { code: codeOf(secret) })).json();

  const other = openTab();
  await other.auth.ready;
  const { secondFactor } = await other.auth.login(person);
  assert.deepEqual([secondFactor.factors, secondFactor.expiresIn], [["totp", "recovery_code"], 300]);
  assert.equal(other.auth.state.status, "out");
  const { ticket } = secondFactor;
  await assert.rejects(other.auth.loginSecondFactor({ ticket, code: "wrong" }), rejection("invalid_second_factor"));
  await other.auth.loginSecondFactor({ ticket, code: done.recovery_codes[0] });
  assert.equal((await other.auth.account()).email, person.email);
  assert.equal((await auth.fetch(`${URL_OF_SERVER}/v1/account`)).status, 200); // in the session that the factor began
});

test("sessions are listed and revoked; without the current one nobody is logged in", async () => {
  const { auth, person } = await openLoggedIn();
  const other = openTab();
  await other.auth.login(person);
  const sessions = await auth.sessions();
  assert.equal(sessions.length, 2);
  await auth.revokeSession(sessions.find((each) => !each.current).id);
  assert.equal(auth.state.status, "in");
  const refused = await other.auth.fetch(`${URL_OF_SERVER}/v1/account`);
  assert.equal(refused.status, 401);
  assert.deepEqual([other.auth.state.status, other.auth.state.reason], ["out", "ended"]);

  await auth.revokeSession(sessions.find((each) => each.current).id);
  assert.deepEqual([auth.state.status, auth.state.reason], ["out", "logout"]);
  await assert.rejects(auth.account(), rejection("missing_credential"));
});

test("a logout everywhere ends the sessions of other browsers", async () => {
  const { auth, person } = await openLoggedIn();
  const other = openTab();
  await other.auth.login(person);
  await auth.logoutEverywhere();
  await assert.rejects(other.auth.account(), { name: "JotgateError", status: 401 });
  assert.equal(other.auth.state.status, "out");
});

test("a logout while a refresh is under way is not undone by it", async () => {
  const { auth, browser, clock } = await openLoggedIn();
  const held = browser.hold("/v1/refresh");
  clock.jump(600_000);
  const asked = auth.getToken();
  await until(held.wasAsked);
  const out = auth.logout();
  assert.equal(auth.state.status, "out"); // at once, whatever the network does
  held.open();
  await out;
  assert.equal(await asked, null);
  assert.equal(await auth.getToken(), null);
  assert.equal(auth.state.status, "out");
  assert.equal((await openTab({ browser }).auth.ready).status, "out");
});

test("a logout while a login is under way ends that login", async () => {
  const { auth, browser, person } = await openLoggedIn();
  const held = browser.hold("/v1/login");
  const login = auth.login(person);
  await until(held.wasAsked);
  const logout = auth.logout();
  held.open();
  await Promise.all([login, logout]);
  assert.equal(auth.state.status, "out");
  assert.equal((await openTab({ browser }).auth.ready).status, "out");
});

test("a logout without a network ends a login that was under way, here at least", async () => {
  const { auth, browser, person } = await openLoggedIn();
  const held = browser.hold("/v1/login");
  const login = auth.login(person);
  await until(held.wasAsked);
  const logout = assert.rejects(auth.logout(), rejection("unreachable"));
  browser.isOffline = true;
  held.open();
  await Promise.all([login, logout]);
  assert.equal(auth.state.status, "out");
});

test("a logout from a session that is over is done", async () => {
  const { auth, browser } = await openLoggedIn();
  browser.cookies.clear();
  await auth.logout();
  assert.equal(auth.state.reason, "logout");
});

test("a login while the page still asks for its session is not undone by that answer", async () => {
  const { person } = await openLoggedIn();
  const browser = new Browser();
  const held = browser.hold("/v1/refresh");
  const { auth } = openTab({ browser });
  await until(held.wasAsked);
  await auth.login(person);
  held.open(); // there was none
  await auth.ready;
  assert.deepEqual([auth.state.status, auth.state.reason], ["in", "login"]);
});

test("who waits for a refresh gets the token of the login that takes its place", async () => {
  const { auth, browser, clock, person } = await openLoggedIn();
  const before = await auth.getToken();
  clock.jump(600_000);
  const [refresh, login] = [browser.hold("/v1/refresh"), browser.hold("/v1/login")];
  const asked = auth.getToken();
  await until(refresh.wasAsked);
  const entered = auth.login(person);
  await until(login.wasAsked);
  refresh.open();
  await browser.fetch(`${URL_OF_SERVER}/healthz`); // comes back later than that answer
  login.open();
  await entered;
  assert.notEqual(await asked, before);
  assert.equal(await asked, await auth.getToken());
});

test("a late answer about the session from before a login says nothing about this one", async () => {
  const { auth, browser, person } = await openLoggedIn();
  const other = openTab();
  await other.auth.login(person);
  await other.auth.logoutEverywhere();
  const held = browser.hold("/v1/account");
  const asked = assert.rejects(auth.account(), { status: 401 });
  await until(held.wasAsked);
  await auth.login(person);
  held.open();
  await asked;
  assert.equal(auth.state.status, "in");
});

test("what is asked while a login is under way waits for it", async () => {
  const { auth, browser, person } = await openLoggedIn();
  await auth.logout();
  const held = browser.hold("/v1/login");
  const login = auth.login(person);
  await until(held.wasAsked);
  const token = auth.getToken();
  held.open();
  await login;
  assert.ok(await token);
  assert.equal(browser.count("/v1/refresh"), 0);
});

test("where the browser keeps no cookie the first refresh says so", async () => {
  const browser = new Browser();
  browser.blocksCookies = true;
  const { auth, clock } = await openLoggedIn({ browser });
  clock.jump(600_000);
  await assert.rejects(auth.getToken(), (error) => {
    assert.equal(error.code, "cookies_blocked");
    assert.match(error.detail, /Allow cookies/);
    return true;
  });
  assert.deepEqual([auth.state.status, auth.state.reason], ["out", "cookies_blocked"]);
});

test("a request whose token is refused where the browser keeps no cookie says so, too", async () => {
  const browser = new Browser();
  browser.blocksCookies = true;
  const { auth } = await openLoggedIn({ browser });
  browser.rule("/v1/account", ({ headers }) => headers.set("Authorization", "Bearer x"));
  await assert.rejects(auth.fetch(`${URL_OF_SERVER}/v1/account`), rejection("cookies_blocked"));
});

test("a cookie that was kept and has gone is a session that has ended", async () => {
  const { auth, browser, clock } = await openLoggedIn();
  clock.jump(600_000);
  await auth.getToken();
  browser.cookies.clear();
  clock.jump(600_000);
  assert.equal(await auth.getToken(), null);
  assert.deepEqual([auth.state.status, auth.state.reason], ["out", "ended"]);
});

test("where the browser says that it keeps no cookies the login says so at once", async () => {
  const browser = new Browser();
  browser.blocksCookies = true;
  Object.defineProperty(globalThis, "navigator", { value: { cookieEnabled: false }, configurable: true });
  try {
    await assert.rejects(openLoggedIn({ browser }), rejection("cookies_blocked"));
  } finally {
    delete globalThis.navigator;
  }
});

test("listeners hear of each change, may call the client, and stop when they are told", async () => {
  const { auth, person } = await openLoggedIn();
  const heard = [];
  let nested;
  const stop = auth.on("change", ({ status, reason }) => {
    heard.push([status, reason]);
    nested = Promise.all([auth.getToken(), auth.account().catch(() => null)]);
  });
  await auth.logout();
  await nested;
  await auth.login(person);
  await nested;
  stop();
  await auth.logout();
  assert.deepEqual(heard, [
    ["out", "logout"],
    ["in", "login"],
  ]);
});

test("a closed client says so and lets the session live", async () => {
  const { auth, browser } = await openLoggedIn();
  auth.close();
  await assert.rejects(auth.getToken(), rejection("closed"));
  await assert.rejects(auth.account(), rejection("closed"));
  assert.equal((await openTab({ browser }).auth.ready).status, "in");
});

// Requests with the token: one refresh for all, one retry, and bounds on every wait.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { URL_OF_SERVER, closeTabs, json, openLoggedIn, rejection, silence, until } from "./support.mjs";

afterEach(closeTabs);

const ACCOUNT = `${URL_OF_SERVER}/v1/account`;
const API = `${URL_OF_SERVER}/api/orders`;
const bearerOf = ({ headers }) => headers.get("Authorization")?.slice("Bearer ".length);
/** The user's API, for which only one token is good. */
const api = (isGood) => (request) =>
  isGood(bearerOf(request))
    ? json({ got: request.init.body })
    : json({}, 401, { "WWW-Authenticate": 'Bearer error="invalid_token"' });
const spoil = ({ headers }) => void headers.set("Authorization", `${headers.get("Authorization")}x`);

test("a hundred requests with an outworn token make one refresh", async () => {
  const { auth, browser, clock } = await openLoggedIn();
  clock.jump(600_000);
  const answers = await Promise.all(Array.from({ length: 100 }, () => auth.fetch(ACCOUNT)));
  assert.ok(answers.every(({ status }) => status === 200));
  assert.equal(browser.count("/v1/refresh"), 1);
});

test("a hundred requests with a refused token make one refresh, and are all answered", async () => {
  const { auth, browser } = await openLoggedIn();
  const refused = await auth.getToken();
  browser.rule("/api/orders", api((token) => token !== refused), 200);
  const answers = await Promise.all(Array.from({ length: 100 }, () => auth.fetch(API)));
  assert.ok(answers.every(({ status }) => status === 200));
  assert.equal(browser.count("/v1/refresh"), 1);
});

test("the token is renewed ahead of its end, without anybody asking", async () => {
  const { auth, browser, clock } = await openLoggedIn();
  const before = await auth.getToken();
  const { refreshAt, expiresAt } = auth.state;
  assert.ok(refreshAt < expiresAt - 59_000 && refreshAt > expiresAt - 91_000);
  clock.pass(200_000);
  assert.equal(browser.count("/v1/refresh"), 0);
  clock.pass(45_000);
  await until(() => browser.count("/v1/refresh") === 1 && auth.state.reason === "refresh");
  assert.notEqual(await auth.getToken(), before);
});

test("shortly before its end a token is still given at once, and renewed beside that", async () => {
  const { auth, browser, clock } = await openLoggedIn();
  const before = await auth.getToken();
  const held = browser.hold("/v1/refresh");
  clock.jump(245_000);
  assert.equal(await auth.getToken(), before);
  await until(held.wasAsked);
  held.open();
  await until(() => auth.state.reason === "refresh");
});

test("a refused token is renewed once and the request sent once more, body and all", async () => {
  const { auth, browser } = await openLoggedIn();
  browser.rule("/v1/account", spoil); // the server itself refuses it
  assert.equal((await auth.fetch(ACCOUNT)).status, 200);
  assert.deepEqual([browser.count("/v1/account"), browser.count("/v1/refresh")], [2, 1]);

  browser.rule("/v1/account", spoil, 9);
  assert.equal((await auth.fetch(ACCOUNT)).status, 401);
  assert.deepEqual([browser.count("/v1/account"), browser.count("/v1/refresh")], [4, 2]);

  const refused = await auth.getToken();
  browser.rule("/api/orders", api((token) => token !== refused), 2);
  const answer = await auth.fetch(API, { method: "POST", body: "two of them" });
  assert.deepEqual(await answer.json(), { got: "two of them" });
});

test("a body that is a stream is sent once, and the token renewed for the next request", async () => {
  const { auth, browser } = await openLoggedIn();
  const refused = await auth.getToken();
  const stream = () => new Blob(["much"]).stream();
  const makers = [
    () => auth.fetch(API, { method: "POST", body: stream(), duplex: "half" }),
    () => auth.fetch(new Request(API, { method: "POST", body: "a request's body is a stream" })),
  ];
  for (const [nth, make] of makers.entries()) {
    const now = nth === 0 ? refused : await auth.getToken();
    browser.rule("/api/orders", api((token) => token !== now));
    assert.equal((await make()).status, 401);
    assert.equal(browser.count("/api/orders"), nth + 1);
    assert.notEqual(await auth.getToken(), now);
  }
});

test("a refusal that is not about the token is left to the page", async () => {
  const { auth, browser } = await openLoggedIn();
  browser.rule("/api/orders", () => json({}, 401, { "WWW-Authenticate": "Basic" }));
  browser.rule("/api/orders", () => json({}, 403));
  assert.equal((await auth.fetch(API)).status, 401);
  assert.equal((await auth.fetch(API)).status, 403);
  assert.equal(browser.count("/v1/refresh"), 0);
});

test("without a session a request goes out without a token", async () => {
  const { auth, browser } = await openLoggedIn();
  await auth.logout();
  browser.rule("/api/orders", (request) => json({ bearer: bearerOf(request) ?? null }));
  assert.deepEqual(await (await auth.fetch(API)).json(), { bearer: null });
});

test("the token goes to no other origin than those named", async () => {
  const { auth, browser } = await openLoggedIn({ origins: ["https://api.shop.example"] });
  browser.rule("/orders", (request) => json({ bearer: bearerOf(request) }));
  const answer = await auth.fetch("https://api.shop.example/orders");
  assert.equal((await answer.json()).bearer, await auth.getToken());
  for (const url of ["https://api.shop.example.evil.example/orders", "http://api.shop.example/orders"]) {
    await assert.rejects(auth.fetch(url), rejection("origin_refused"));
    await assert.rejects(auth.fetch(new Request(url)), rejection("origin_refused"));
  }
  assert.equal(browser.count("/orders"), 1);
});

test("headers, methods and signals of the page's own are kept", async () => {
  const { auth, browser } = await openLoggedIn();
  browser.rule("/api/orders", ({ method, headers }) => json({ method, mine: headers.get("X-Mine") }), 2);
  const init = { method: "PUT", headers: { "X-Mine": "1" } };
  for (const answer of [await auth.fetch(API, init), await auth.fetch(new Request(API, init), { method: "PUT" })]) {
    assert.deepEqual(await answer.json(), { method: "PUT", mine: "1" });
  }
  browser.rule("/api/orders", silence);
  const stop = new AbortController();
  const given = auth.fetch(API, { signal: stop.signal });
  await until(() => browser.count("/api/orders") === 3);
  stop.abort(new Error("mine"));
  await assert.rejects(given, { message: "mine" });
});

test("every request has an end", async () => {
  const { auth, browser, clock, person } = await openLoggedIn({ timeoutMs: 7000 });
  const asks = {
    "/api/orders": () => auth.fetch(API),
    "/v1/account": () => auth.account(),
    "/v1/sessions": () => auth.sessions(),
    "/v1/signup": () => auth.signup(person),
    "/v1/login": () => auth.login(person),
    "/v1/logout": () => auth.logout(),
  };
  for (const [path, ask] of Object.entries(asks)) {
    browser.rule(path, silence);
    const asked = assert.rejects(ask(), rejection("timeout", { status: 0 }), path);
    await until(() => browser.count(path) === 1);
    clock.pass(6900);
    assert.ok(clock.isWaiting(7000), path);
    clock.pass(200);
    await asked;
  }
  browser.rule("/api/orders", silence);
  const hasty = assert.rejects(auth.fetch(API, { timeoutMs: 50 }), rejection("timeout"));
  await until(() => clock.isWaiting(50));
  clock.pass(60);
  await hasty;
});

test("a time-out ends with the answer's beginning: its body may take longer", async () => {
  const { auth, browser, clock } = await openLoggedIn();
  let end;
  const body = new ReadableStream({ start: (controller) => (end = () => controller.close()) });
  browser.rule("/api/orders", () => new Response(body));
  const answer = await auth.fetch(API);
  clock.pass(31_000);
  end();
  assert.equal(await answer.text(), "");
});

for (const status of [429, 503]) {
  const busy = (retryAfter) => () => json({ code: "busy" }, status, { "Retry-After": String(retryAfter) });

  test(`${status}: a short wait is waited out, at the auth server and at an API`, async () => {
    const { auth, browser, clock } = await openLoggedIn();
    const asks = { "/v1/account": () => auth.account(), "/api/orders": () => auth.fetch(API) };
    browser.rule("/v1/account", busy(3));
    browser.rule("/api/orders", busy(3));
    browser.rule("/api/orders", () => json({}));
    for (const [path, ask] of Object.entries(asks)) {
      const asked = ask();
      await until(() => clock.isWaiting(3000));
      clock.pass(2900);
      assert.equal(browser.count(path), 1);
      clock.pass(200);
      await asked;
      assert.equal(browser.count(path), 2);
    }
  });

  test(`${status}: a wait without end has one`, async () => {
    const { auth, browser, clock } = await openLoggedIn();
    const refused = rejection("busy", { status, retryAfterS: 1 });
    const asks = {
      "/v1/account": () => assert.rejects(auth.account(), refused),
      "/api/orders": async () => assert.equal((await auth.fetch(API)).status, status),
    };
    for (const [path, ask] of Object.entries(asks)) {
      browser.rule(path, busy(1), 9);
      const asked = ask();
      for (const times of [1, 2]) {
        await until(() => clock.isWaiting(1000) && browser.count(path) === times);
        clock.pass(1100);
      }
      await asked;
      assert.equal(browser.count(path), 3);
    }
  });

  test(`${status}: a long wait is told to who asks, and no refresh is sent before its end`, async () => {
    const { auth, browser, clock } = await openLoggedIn();
    browser.rule("/v1/refresh", busy(100));
    clock.jump(600_000);
    for (const _ of [1, 2, 3]) {
      await assert.rejects(auth.getToken(), rejection("busy", { status, retryAfterS: 100 }));
    }
    assert.equal(browser.count("/v1/refresh"), 1);
    assert.equal(auth.state.status, "in");
    const [[id, early]] = clock.timers;
    clock.timers.delete(id);
    early.run(); // as some clocks do
    await until(() => clock.timers.size === 1);
    clock.pass(100_100); // by itself
    await until(() => auth.state.reason === "refresh");
    assert.equal(browser.count("/v1/refresh"), 2);
  });
}

test("a date in Retry-After is taken by the server's clock", async () => {
  const { auth, browser, clock } = await openLoggedIn();
  clock.jump(-3_600_000);
  await auth.account();
  const date = new Date(Date.now() + 100_000).toUTCString();
  browser.rule("/v1/account", () => json({ code: "busy" }, 503, { "Retry-After": date }));
  await assert.rejects(auth.account(), ({ retryAfterS }) => retryAfterS > 90 && retryAfterS < 105);
});

test("a POST that an API answers with 503 may have been done: it is not sent again", async () => {
  const { auth, browser } = await openLoggedIn();
  browser.rule("/api/orders", () => json({}, 503, { "Retry-After": "1" }));
  assert.equal((await auth.fetch(API, { method: "POST", body: "one" })).status, 503);
});

test("the server's own wait after a wrong password is waited out", async () => {
  const { auth, clock, person } = await openLoggedIn();
  await auth.logout();
  const stranger = await openLoggedIn(); // knows no cookie of this person's browser
  await assert.rejects(stranger.auth.login({ ...person, password: "not the right one" }), rejection("invalid_credentials"));
  const login = stranger.auth.login(person);
  await until(() => stranger.clock.isWaiting(1000));
  await new Promise((resolve) => setTimeout(resolve, 1100)); // the server's second
  stranger.clock.pass(1100);
  await login;
  assert.equal((await stranger.auth.account()).email, person.email);
  assert.equal(clock.isWaiting(1000), false);
});

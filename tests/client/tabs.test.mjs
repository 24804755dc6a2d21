// Tabs, networks and clocks: what happens around a session.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { HandClock, URL_OF_SERVER, closeTabs, handChannel, openLoggedIn, openTab, page, rejection, until } from "./support.mjs";

afterEach(closeTabs);

const ACCOUNT = `${URL_OF_SERVER}/v1/account`;

/** Two tabs of one browser, both logged in; they hear each other as in life. */
async function twoTabs() {
  const clock = new HandClock();
  const first = await openLoggedIn({ clock, channel: undefined });
  const second = openTab({ browser: first.browser, clock, channel: undefined });
  await second.auth.ready;
  first.browser.sent.length = 0;
  return { browser: first.browser, clock, person: first.person, auths: [first.auth, second.auth] };
}

test("a fresh token of one tab is the other's, too", async () => {
  const { browser, clock, auths } = await twoTabs();
  const [one, other] = auths;
  clock.jump(600_000);
  const token = await one.getToken();
  await until(() => other.state.expiresAt === one.state.expiresAt);
  assert.equal(await other.getToken(), token);
  assert.equal(browser.count("/v1/refresh"), 1);
});

test("two tabs that refresh at once both go on", async () => {
  const { clock, auths } = await twoTabs();
  for (let round = 0; round < 10; round++) {
    clock.jump(600_000);
    const answers = await Promise.all(auths.map((auth) => auth.fetch(ACCOUNT)));
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200],
    );
  }
});

test("a logout in one tab empties both, at once", async () => {
  const { browser, auths } = await twoTabs();
  const held = browser.hold("/v1/logout");
  const out = auths[0].logout();
  await until(() => auths[1].state.status === "out"); // before the server has answered
  assert.equal(auths[1].state.reason, "logout");
  assert.equal(await auths[1].getToken(), null);
  held.open();
  await out;
});

test("a login in one tab is the other's, too", async () => {
  const { auths, person } = await twoTabs();
  await auths[0].logout();
  await until(() => auths[1].state.status === "out");
  await auths[1].login(person);
  await until(() => auths[0].state.status === "in");
  assert.equal((await auths[0].fetch(ACCOUNT)).status, 200);
});

test("a session that the server has ended is left in both tabs", async () => {
  const { auths, person } = await twoTabs();
  const elsewhere = openTab();
  await elsewhere.auth.login(person);
  await elsewhere.auth.logoutEverywhere();
  assert.equal((await auths[0].fetch(ACCOUNT)).status, 401);
  await until(() => auths[1].state.status === "out");
  assert.equal(auths[1].state.reason, "ended");
});

test("a refresh of one tab does not undo the logout of another", async () => {
  const { browser, clock, auths } = await twoTabs();
  const held = browser.hold("/v1/refresh");
  clock.jump(600_000);
  const asked = auths[0].getToken();
  await until(held.wasAsked);
  await auths[1].logout();
  await until(() => auths[0].state.status === "out");
  held.open();
  assert.equal(await asked, null);
  assert.deepEqual(
    auths.map((auth) => auth.state.status),
    ["out", "out"],
  );
});

test("news from before a login or logout come too late", async () => {
  const channel = handChannel();
  const { auth, person } = await openLoggedIn({ channel });
  const first = channel.posted.at(-1);
  await auth.logout();
  const gone = channel.posted.at(-1);
  assert.deepEqual([first.type, gone.type], ["in", "out"]);
  channel.say(first);
  channel.say({ ...first, epoch: gone.epoch });
  assert.deepEqual([auth.state.status, await auth.getToken()], ["out", null]);

  await auth.login(person);
  const token = await auth.getToken();
  channel.say(gone);
  channel.say({ ...first, held: { ...first.held, expiresAt: first.held.expiresAt + 60_000 } });
  assert.deepEqual([auth.state.status, await auth.getToken()], ["in", token]);
});

test("of two tokens of a session the later one stays", async () => {
  const channel = handChannel();
  const { auth, clock } = await openLoggedIn({ channel });
  const first = channel.posted.at(-1);
  clock.jump(600_000);
  const token = await auth.getToken();
  // The server tells the time in whole seconds: tokens this close could come in either order.
  channel.say({ ...first, held: { ...first.held, expiresAt: first.held.expiresAt - 2_000 } });
  assert.equal(await auth.getToken(), token);
});

test("a refresh under way does not undo another tab's login", async () => {
  const channel = handChannel();
  const { auth, browser, clock } = await openLoggedIn({ channel });
  const other = await openLoggedIn({ channel: handChannel(), clock });
  const token = await other.auth.getToken();
  const held = browser.hold("/v1/refresh");
  clock.pass(245_000);
  await until(held.wasAsked);
  const heard = { type: "in", reason: "login", epoch: clock.now(), skewMs: -245_000 };
  const now = Date.now();
  channel.say({ ...heard, held: { token, scopes: [], issuedAt: now, expiresAt: now + 300_000 } });
  held.open();
  await auth.account(); // comes back later than that answer, which would have done its harm
  assert.deepEqual([auth.state.reason, await auth.getToken()], ["login", token]);
});

test("without a network the session stays, and goes on as soon as there is one", async () => {
  const { auth, browser, clock } = await openLoggedIn();
  browser.isOffline = true;
  clock.jump(600_000);
  await assert.rejects(auth.fetch(ACCOUNT), rejection("unreachable", { status: 0 }));
  await assert.rejects(auth.getToken(), rejection("unreachable"));
  assert.equal(auth.state.status, "in");
  browser.isOffline = false;
  page.dispatchEvent(new Event("online"));
  await until(() => auth.state.reason === "refresh");
  assert.equal((await auth.fetch(ACCOUNT)).status, 200);
});

test("it tries again by itself, with longer and longer pauses that have a bound", async () => {
  const { auth, browser, clock } = await openLoggedIn();
  browser.isOffline = true;
  clock.jump(600_000);
  await assert.rejects(auth.getToken());
  const pauses = [];
  for (let tries = 1; tries <= 10; tries++) {
    await until(() => browser.count("/v1/refresh") === tries && clock.timers.size === 1);
    const [{ ms }] = clock.timers.values();
    pauses.push(ms);
    clock.pass(ms + 1);
  }
  for (const [n, ms] of pauses.entries()) {
    const longest = Math.min(60_000, 1000 * 2 ** n);
    assert.ok(ms >= longest / 2 && ms <= longest, `${ms} after ${n}`);
  }
  await until(() => browser.count("/v1/refresh") === 11 && clock.timers.size === 1);
  browser.isOffline = false;
  clock.pass(60_000);
  await until(() => auth.state.reason === "refresh");
});

test("a page that opens without a network says that it does not know, and finds out", async () => {
  const { browser } = await openLoggedIn();
  browser.isOffline = true;
  const { auth } = openTab({ browser });
  assert.equal((await auth.ready).status, "unknown");
  await assert.rejects(auth.getToken(), rejection("unreachable"));
  browser.isOffline = false;
  page.dispatchEvent(new Event("online"));
  await until(() => auth.state.status === "in");
});

test("a logout that the server does not hear empties the page, and reaches it later", async () => {
  const { auth, browser } = await openLoggedIn();
  browser.isOffline = true;
  await assert.rejects(auth.logout(), rejection("unreachable"));
  assert.deepEqual([auth.state.status, await auth.getToken()], ["out", null]);
  browser.isOffline = false;
  page.dispatchEvent(new Event("online"));
  await until(() => browser.cookies.size === 1); // the device's is left
  assert.equal((await openTab({ browser }).auth.ready).status, "out");
});

test("a logout that is still owed is tried again, whatever other tabs say", async () => {
  const channel = handChannel();
  const { auth, browser, clock } = await openLoggedIn({ channel });
  browser.isOffline = true;
  await assert.rejects(auth.logout(), rejection("unreachable"));
  channel.say({ type: "out", reason: "logout", epoch: clock.now() + 1 });
  browser.isOffline = false;
  clock.pass(60_000);
  await until(() => browser.count("/v1/logout") === 2);
});

test("a logout that was owed does not end the next login", async () => {
  const { auth, browser, person } = await openLoggedIn();
  browser.isOffline = true;
  await assert.rejects(auth.logout(), rejection("unreachable"));
  browser.isOffline = false;
  await auth.login(person);
  page.dispatchEvent(new Event("online"));
  assert.equal((await auth.account()).email, person.email);
  assert.equal(browser.count("/v1/logout"), 1);
});

test("after sleep no outworn token is given", async () => {
  const { auth, browser, clock } = await openLoggedIn();
  const before = await auth.getToken();
  clock.jump(8 * 3_600_000); // timers have slept as well
  assert.notEqual(await auth.getToken(), before);
  assert.equal(browser.count("/v1/refresh"), 1);
});

test("a page that comes back to life looks at the clock", async () => {
  const { auth, browser, clock } = await openLoggedIn();
  page.dispatchEvent(new Event("focus"));
  clock.jump(600_000);
  page.dispatchEvent(new Event("focus"));
  await until(() => auth.state.reason === "refresh");
  assert.equal(browser.count("/v1/refresh"), 1);
});

test("a page out of the back/forward cache asks whether it is still logged in", async () => {
  const { auth, browser } = await openLoggedIn();
  await openTab({ browser }).auth.logout(); // which it does not hear
  page.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }));
  await until(() => auth.state.status === "out");
});

for (const hours of [-5, 5]) {
  test(`a clock that is wrong by ${hours} hours makes no difference`, async () => {
    const clock = new HandClock();
    clock.jump(hours * 3_600_000);
    const { auth, browser } = await openLoggedIn({ clock });
    const left = auth.state.expiresAt - clock.now();
    assert.ok(left > 295_000 && left < 303_000, `${left} ms left`);
    assert.equal((await auth.fetch(ACCOUNT)).status, 200);
    assert.equal(browser.count("/v1/refresh"), 0);
  });

  test(`a clock that is set by ${hours} hours is seen through by the next answer`, async () => {
    const { auth, browser, clock } = await openLoggedIn();
    const token = await auth.getToken();
    clock.jump(hours * 3_600_000);
    await auth.account();
    assert.equal(await auth.getToken(), token);
    assert.equal(browser.count("/v1/refresh"), 0);
    const left = auth.state.expiresAt - clock.now();
    assert.ok(left > 280_000 && left < 303_000, `${left} ms left`);

    clock.jump(hours * 3_600_000); // and without one, by a refresh at most
    await auth.getToken();
    await auth.getToken();
    assert.ok(browser.count("/v1/refresh") === 1);
  });
}

// The access token lives in this variable, the refresh token in a cookie that no script can read.
let token = null;

const call = (path, body) =>
  fetch(`/auth/v1/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "Jotgate-Client": "1" },
    body: JSON.stringify(body ?? {}),
  });

async function show(answer) {
  token = answer.ok && answer.status === 200 ? (await answer.json()).access_token : null;
  document.querySelector("#login").hidden = token !== null;
  document.querySelector("#logout").hidden = token === null;
  document.querySelector("#status").textContent = token === null ? "logged out" : "logged in";
}

document.querySelector("#login").addEventListener("submit", async (event) => {
  event.preventDefault();
  await show(await call("login", Object.fromEntries(new FormData(event.target))));
});
document.querySelector("#logout").addEventListener("click", async () => show(await call("logout")));

await show(await call("refresh")); // a reload keeps the session

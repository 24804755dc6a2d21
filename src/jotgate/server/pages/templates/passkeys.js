// Asks the browser for a passkey, and sends what it gives with the form. Where it cannot, such forms stay hidden.

const can = "credentials" in navigator && "PublicKeyCredential" in window
  && "parseRequestOptionsFromJSON" in PublicKeyCredential;

/**
 * @param {HTMLFormElement} form
 * @param {CredentialRequestOptions} how
 */
async function ask(form, how) {
  const options = JSON.parse(form.dataset.options ?? "{}");
  const { credentials } = navigator;
  const passkey = form.dataset.passkey === "create"
    ? await credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })
    : await credentials.get({ ...how, publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
  const field = form.querySelector("[name=passkey]");
  if (!(passkey instanceof PublicKeyCredential) || !(field instanceof HTMLInputElement)) throw new TypeError();
  field.value = JSON.stringify(passkey);
  form.submit();
}

/** @param {HTMLFormElement} form */
function prepare(form) {
  const status = form.querySelector("[role=status]");
  const offered = new AbortController(); // the browser asks for one passkey at a time
  let busy = false;
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    offered.abort();
    if (status) status.textContent = "";
    try {
      await ask(form, {});
    } catch {
      if (status) status.textContent = form.dataset.failed ?? "";
      busy = false;
    }
  });
  if (document.querySelector("[autocomplete~=webauthn]")) offer(form, offered.signal);
}

/**
 * Lists passkeys beside what the browser fills in.
 *
 * @param {HTMLFormElement} form
 * @param {AbortSignal} signal
 */
async function offer(form, signal) {
  if (!await PublicKeyCredential.isConditionalMediationAvailable?.()) return;
  await ask(form, { mediation: "conditional", signal }).catch(() => {});
}

if (can) {
  for (const form of document.querySelectorAll("form[data-passkey]")) {
    if (form instanceof HTMLFormElement) prepare(form);
  }
  for (const told of document.querySelectorAll(".missing")) told.remove();
}

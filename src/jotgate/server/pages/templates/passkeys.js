// Asks the browser for a passkey, and sends what it gives with the form. Where it cannot, such forms stay hidden.

const can = "credentials" in navigator && "PublicKeyCredential" in window
  && "parseRequestOptionsFromJSON" in PublicKeyCredential;

/** @param {HTMLFormElement} form */
function ask(form) {
  const options = JSON.parse(form.dataset.options ?? "{}");
  return form.dataset.passkey === "create"
    ? navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })
    : navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
}

/** @param {HTMLFormElement} form */
function prepare(form) {
  const field = form.querySelector("[name=passkey]");
  const status = form.querySelector("[role=status]");
  let busy = false;
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    if (status) status.textContent = "";
    try {
      const passkey = await ask(form);
      if (!(passkey instanceof PublicKeyCredential) || !(field instanceof HTMLInputElement)) throw new TypeError();
      field.value = JSON.stringify(passkey);
      form.submit();
    } catch {
      if (status) status.textContent = form.dataset.failed ?? "";
      busy = false;
    }
  });
}

if (can) {
  for (const form of document.querySelectorAll("form[data-passkey]")) {
    if (form instanceof HTMLFormElement) prepare(form);
  }
  for (const told of document.querySelectorAll(".missing")) told.remove();
}

// Says how a new password looks while it is typed. The server decides; without this module nothing is missing.

/** @param {string} text */
function looksWeak(text) {
  const letters = [...text.toLowerCase()];
  const steps = letters.slice(1).filter((each, n) => Math.abs(each.charCodeAt(0) - letters[n].charCodeAt(0)) > 1);
  return new Set(letters).size < 6 || steps.length < letters.length / 3;
}

const field = document.querySelector("#new_password");
const hint = document.querySelector("#hint");
if (field instanceof HTMLInputElement && hint instanceof HTMLElement) {
  field.addEventListener("input", () => {
    const { short = "", weak = "", good = "" } = hint.dataset;
    const length = [...field.value.normalize("NFC")].length;
    hint.textContent = !length ? "" : length < field.minLength ? short : looksWeak(field.value) ? weak : good;
  });
}

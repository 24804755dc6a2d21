// Small things for making and finding elements, and for writing money and times.

export const $ = (id) => document.getElementById(id);

/** Makes an element. `onclick` and the like are listeners; true and false set and leave out an attribute. */
export function h(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(key, value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** A view's first heading, which gets the focus when a person arrives there. */
export const title = (words) => h("h1", { tabindex: "-1" }, words);

export const picture = (product) =>
  h("img", { src: `/static/pictures/${product.id}.svg`, alt: "", width: "96", height: "96" });

const EUROS = new Intl.NumberFormat("en", { style: "currency", currency: "EUR" });
const MOMENT = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "short" });

export const money = (cents) => EUROS.format(cents / 100);

/** @param {number} at Unix seconds */
export const moment = (at) => MOMENT.format(at * 1000);

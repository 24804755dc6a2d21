// The shelf with its search, and the page of one product; staff say there how many are left.

import { isStaff } from "./auth.js";
import { MOST_OF_ONE, add } from "./cart.js";
import { h, money, picture, title } from "./dom.js";
import { goods, know, search, setStock } from "./goods.js";
import { attempt, say } from "./messages.js";

const TYPING_MS = 250;
const FEW = 5;

let query = ""; // it is still there for whoever comes back from a product

function stockOf({ stock }) {
  if (stock === 0) return h("p", { class: "stock out" }, "Sold out");
  if (isStaff()) return h("p", { class: "stock" }, `${stock} in stock`);
  return h("p", { class: "stock" }, stock <= FEW ? `Only ${stock} left` : "In stock");
}

function put(product, quantity) {
  add(product, quantity);
  say(`In your cart: ${quantity} × ${product.name}.`);
}

function card(product) {
  const button = { type: "button", class: "quiet", "aria-label": `Add to cart: ${product.name}` };
  return h(
    "li",
    {},
    picture(product),
    h("h2", {}, h("a", { href: `#/product/${product.id}` }, product.name)),
    h("p", { class: "hint" }, product.detail),
    h("div", { class: "line" }, stockOf(product), h("p", { class: "price" }, money(product.price_cents))),
    product.stock ? h("button", { ...button, onclick: () => put(product, 1) }, "Add to cart") : "",
  );
}

export function shelf(view, signal) {
  const list = h("ul", { class: "shelf" });
  const found = h("p", { class: "hint", "aria-live": "polite" });
  const input = h("input", { id: "query", type: "search", value: query, maxlength: "64", autocomplete: "off" });
  let stop = new AbortController();
  let typing = 0;

  async function show() {
    stop.abort();
    stop = new AbortController();
    query = input.value.trim();
    const products = await search(query, AbortSignal.any([signal, stop.signal]));
    list.replaceChildren(...products.map(card));
    found.textContent = query ? `${products.length || "Nothing"} found for “${query}”` : "";
  }

  const begin = () => attempt(show);
  const form = h(
    "form",
    {
      role: "search",
      class: "search",
      onsubmit: (event) => {
        event.preventDefault();
        clearTimeout(typing);
        begin();
      },
      oninput: () => {
        clearTimeout(typing);
        typing = setTimeout(begin, TYPING_MS);
      },
    },
    h("label", { for: "query" }, "Search the shelf"),
    input,
  );
  view.replaceChildren(title("On the shelf"), form, found, list);
  signal.addEventListener("abort", () => clearTimeout(typing));
  return begin();
}

function stockForm(product, shown) {
  const count = h("input", { id: "stock", type: "number", min: "0", max: "9999", required: true, value: product.stock });
  const button = h("button", { type: "submit" }, "Save");
  const save = async () => {
    await setStock(product, Number(count.value));
    say(`${product.name}: ${count.value} in stock.`);
    await shown();
  };
  return h(
    "form",
    {
      class: "staff",
      onsubmit: (event) => {
        event.preventDefault();
        attempt(save, button);
      },
    },
    h("label", { for: "stock" }, "How many are left (staff)"),
    h("div", { class: "row" }, count, button),
  );
}

export async function product(view, signal, id) {
  const shown = () => product(view, signal, id);
  view.replaceChildren(title("…"));
  if (!(await attempt(() => know(signal)))) return;
  const it = goods.get(id);
  if (!it) {
    view.replaceChildren(title("The shop has no such thing"), h("p", {}, h("a", { href: "#/" }, "Back to the shelf")));
    return;
  }
  const most = Math.min(MOST_OF_ONE, it.stock);
  const quantity = h("input", { id: "quantity", type: "number", min: "1", max: most, value: "1", required: true });
  const form = h(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        put(it, Number(quantity.value));
      },
    },
    h("label", { for: "quantity" }, "How many"),
    h("div", { class: "row" }, quantity, h("button", { type: "submit" }, "Add to cart")),
  );
  view.replaceChildren(
    h("p", {}, h("a", { href: "#/" }, "Back to the shelf")),
    h(
      "article",
      { class: "product" },
      picture(it),
      h(
        "div",
        {},
        title(it.name),
        h("p", { class: "hint" }, it.detail),
        h("p", { class: "price" }, money(it.price_cents)),
        stockOf(it),
        it.stock ? form : "",
        isStaff() ? stockForm(it, shown) : "",
      ),
    ),
  );
}

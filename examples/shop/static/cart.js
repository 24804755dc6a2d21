// The cart, in this page's memory, and the checkout.

import { askOwn, isIn } from "./auth.js";
import { $, h, money, picture, title } from "./dom.js";
import { goods, know, search } from "./goods.js";
import { attempt, go, say } from "./messages.js";

/** As the API has it. */
export const MOST_OF_ONE = 20;

const lines = new Map(); // how many, by the product's id
// Names this cart for the API: when the answer gets lost and it is sent again, it is ordered once.
let checkoutId = "";

function changed() {
  checkoutId = crypto.randomUUID();
  const count = [...lines.values()].reduce((sum, each) => sum + each, 0);
  $("cart-count").textContent = count ? ` (${count})` : "";
}

export function add({ id, stock }, quantity) {
  lines.set(id, Math.min((lines.get(id) ?? 0) + quantity, MOST_OF_ONE, stock));
  changed();
}

export function empty() {
  lines.clear();
  changed();
}

function line(id, quantity, show) {
  const product = goods.get(id);
  const lacks = quantity > product.stock;
  const input = h("input", {
    type: "number",
    min: "1",
    max: Math.min(MOST_OF_ONE, product.stock),
    value: quantity,
    required: true,
    "aria-label": `How many: ${product.name}`,
    "aria-invalid": String(lacks),
    onchange: () => {
      if (!input.reportValidity()) return;
      lines.set(id, Number(input.value));
      changed();
      show();
    },
  });
  const remove = () => {
    lines.delete(id);
    changed();
    show();
    say(`Taken out: ${product.name}.`);
    document.querySelector("h1").focus();
  };
  return h(
    "li",
    {},
    picture(product),
    h("a", { href: `#/product/${id}` }, product.name),
    input,
    h("b", {}, money(product.price_cents * quantity)),
    h("button", { type: "button", class: "quiet", "aria-label": `Remove: ${product.name}`, onclick: remove }, "Remove"),
    lacks ? h("p", { class: "stock out" }, product.stock ? `Only ${product.stock} left` : "Sold out") : "",
  );
}

export async function cart(view, signal) {
  const heading = title("Your cart");
  view.replaceChildren(heading);
  if (lines.size && !(await attempt(() => know(signal)))) return;

  async function order(event) {
    const wanted = [...lines].map(([product, quantity]) => ({ product, quantity }));
    const done = await attempt(async () => {
      try {
        await askOwn("POST", "/api/checkout", { id: checkoutId, lines: wanted });
      } catch (error) {
        if (error.code === "out_of_stock") await search("").then(show);
        throw error;
      }
      empty();
      goods.clear(); // fewer are left now
    }, event.target);
    if (done) go("#/orders", "Thank you. Your order is placed.");
  }

  function show() {
    const total = [...lines].reduce((sum, [id, quantity]) => sum + goods.get(id).price_cents * quantity, 0);
    view.replaceChildren(
      heading,
      ...(lines.size
        ? [
            h("ul", { class: "cart" }, ...[...lines].map(([id, quantity]) => line(id, quantity, show))),
            h("p", { class: "total" }, "Total ", h("b", {}, money(total))),
            isIn()
              ? h("button", { type: "button", onclick: order }, "Place the order")
              : h("a", { class: "button", href: "#/enter" }, "Log in to order"),
          ]
        : [h("p", {}, "It is empty. ", h("a", { href: "#/" }, "Look at the shelf"))]),
    );
  }

  show();
}

export const hasLines = () => lines.size > 0;

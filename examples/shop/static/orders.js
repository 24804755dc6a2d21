// The own orders, which the API shows to nobody else.

import { askOwn, isIn } from "./auth.js";
import { h, moment, money, title } from "./dom.js";
import { goods, know } from "./goods.js";
import { attempt } from "./messages.js";

export async function orders(view, signal) {
  const heading = title("Your orders");
  if (!isIn()) {
    view.replaceChildren(heading, h("p", {}, h("a", { href: "#/enter" }, "Log in"), " to see them."));
    return;
  }
  view.replaceChildren(heading);
  await attempt(async () => {
    const [answer] = await Promise.all([askOwn("GET", "/api/orders"), know(signal)]);
    if (signal.aborted) return;
    const items = answer.orders.map((each) =>
      h(
        "li",
        {},
        h("span", {}, `${each.quantity} × ${goods.get(each.product)?.name ?? each.product}`),
        h("time", {}, moment(each.ordered_at)),
        h("b", {}, money(each.total_cents)),
      ),
    );
    const none = h("p", {}, "None yet. ", h("a", { href: "#/" }, "The shelf is well stocked."));
    view.replaceChildren(heading, items.length ? h("ol", { class: "orders" }, ...items) : none);
  });
}

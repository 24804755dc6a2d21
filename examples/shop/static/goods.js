// What the shop sells, as it was last told.

import { ask, askOwn } from "./auth.js";

/** By id. */
export const goods = new Map();

const keep = (product) => goods.set(product.id, product);

/** @returns the products that fit a query; all of them for none */
export async function search(query, signal) {
  const { products } = await ask(query ? `/api/products?${new URLSearchParams({ q: query })}` : "/api/products", signal);
  products.forEach(keep);
  return products;
}

/** Sees to it that every product is known. */
export async function know(signal) {
  if (!goods.size) await search("", signal);
}

export async function setStock(product, stock) {
  keep(await askOwn("PATCH", `/api/products/${product.id}`, { stock }));
}

// The invoice, in TypeScript: built from the WIT package with esbuild and componentize-qjs.

import { open as openShop, type Client } from "flowstone:asset/http@0.1.0";
import { open as openInput } from "flowstone:asset/inputs@0.1.0";
import { open as openBucket, type Bucket } from "flowstone:asset/key-value@0.1.0";
import { write as log } from "flowstone:asset/log@0.1.0";
import { setMetadata, write as writeBytes } from "flowstone:asset/output@0.1.0";
import type { CapabilityError, Failure } from "flowstone:asset/types@0.1.0";
import type * as world from "foreign:invoices/invoice";

import { decoded, encoded } from "./utf8.js";

const CHUNK_BYTES = 1 << 20;

export const definitions: typeof world.definitions = {
  describe: () => [
    {
      name: "invoice_typescript",
      description: "Orders with their prices.",
      kind: "plain",
      inputs: [{ name: "orders", asset: "orders", optional: false, mapping: { tag: "same" } }],
      dimensions: [],
      requirements: [
        { resourceName: "shop", capability: "http", reason: "asks for prices" },
        { resourceName: "prices", capability: "key-value", reason: "remembers prices" },
      ],
      mediaType: "text/csv",
      checks: [],
      tags: [],
    },
  ],
};

export const materializer: typeof world.materializer = {
  materialize(asset) {
    using shop = step("the shop", () => openShop("shop"));
    using prices = step("the prices", () => openBucket("prices"));
    writeInvoice((item) => findPrice(asset, shop, prices, item));
    return { tag: "done" };
  },
};

/** What the host refuses here is how the asset fails; what may pass is worth another attempt. */
function step<T>(what: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw isRefusal(error) ? failure(what, error.payload) : error;
  }
}

/** What the host answers instead of a result is thrown with the contract's error as its payload. */
function isRefusal(error: unknown): error is { payload: CapabilityError } {
  return typeof error === "object" && error !== null && "payload" in error;
}

function failure(what: string, error: CapabilityError): Failure {
  const message = "val" in error ? `${what}: ${error.tag}: ${error.val}` : `${what}: ${error.tag}`;
  return error.tag === "unavailable" ? { tag: "retryable", val: { message } } : { tag: "permanent", val: message };
}

/** What is remembered of an item, or else what the shop says, which is remembered then. */
function findPrice(asset: string, shop: Client, prices: Bucket, item: string): bigint {
  const what = `the price of ${item}`;
  const key = `${asset}/price/${item}`;
  const known = step(what, () => prices.get(key));
  if (known) return BigInt(decoded(known.value));
  const price = step(what, () => askForPrice(shop, item));
  step(what, () => prices.set(key, price));
  step(what, () => prices.increment(`${asset}/asked`, 1));
  return BigInt(decoded(price));
}

function askForPrice(shop: Client, item: string): Uint8Array {
  const query = [{ name: "item", value: item }];
  using answer = shop.send({ method: "GET", path: "price", query, headers: [], body: new Uint8Array() });
  if (answer.status() !== 200) {
    throw { tag: "permanent", val: `the price of ${item}: status ${answer.status()}` } satisfies Failure;
  }
  return readAll(answer);
}

function writeInvoice(price: (item: string) => bigint): void {
  const orders = step("the orders", readOrders).trimEnd().split("\n").slice(1);
  let sum = 0n;
  write("item,quantity,cents,total\n");
  for (const order of orders) {
    const [item = "", quantity = ""] = order.split(",");
    const cents = price(item);
    const total = BigInt(quantity) * cents;
    sum += total;
    write(`${item},${quantity},${cents},${total}\n`);
  }
  write(`sum,,,${sum}\n`);
  const count = [{ name: "orders", value: String(orders.length) }];
  step("the metadata", () => setMetadata(count));
  log("info", "priced", count);
}

function readOrders(): string {
  using orders = openInput("orders", 0);
  return decoded(readAll(orders));
}

function readAll(from: { read(max: number): Uint8Array }): Uint8Array {
  const bytes: number[] = [];
  for (let chunk = from.read(CHUNK_BYTES); chunk.length > 0; chunk = from.read(CHUNK_BYTES)) {
    for (const byte of chunk) bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

function write(text: string): void {
  step("the output", () => writeBytes(encoded(text)));
}

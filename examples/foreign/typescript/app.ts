// The invoice, in TypeScript: built with esbuild and componentize-qjs from the WIT package alone.

import { open as openShop, type Client } from "flowstone:asset/http@0.1.0";
import { open as openInput } from "flowstone:asset/inputs@0.1.0";
import { write as log } from "flowstone:asset/log@0.1.0";
import { setMetadata, write as writeBytes } from "flowstone:asset/output@0.1.0";
import type * as invoiceWorld from "foreign:invoices/invoice";
import type { CapabilityError, Failure } from "flowstone:asset/types@0.1.0";
import { decoded, encoded } from "./utf8.js";

const CHUNK_BYTES = 1 << 20;

export const definitions: typeof invoiceWorld.definitions = {
  describe: () => [
    {
      name: "invoice_typescript",
      description: "Orders with their prices.",
      kind: "plain",
      inputs: [{ name: "orders", asset: "orders", optional: false, mapping: { tag: "same" } }],
      dimensions: [],
      requirements: [{ resourceName: "shop", capability: "http", reason: "asks for prices" }],
      mediaType: "text/csv",
      checks: [],
      tags: [],
    },
  ],
};

export const materializer: typeof invoiceWorld.materializer = {
  materialize() {
    try {
      invoice();
    } catch (error) {
      throw failure(error);
    }
    return { tag: "done" };
  },
};

function invoice(): void {
  const orders = readInput("orders").trimEnd().split("\n").slice(1);
  let sum = 0n;
  write("item,quantity,cents,total\n");
  using shop = openShop("shop");
  for (const order of orders) {
    const [item = "", quantity = ""] = order.split(",");
    const cents = price(shop, item);
    const total = BigInt(quantity) * cents;
    sum += total;
    write(`${item},${quantity},${cents},${total}\n`);
  }
  write(`sum,,,${sum}\n`);
  const counted = [{ name: "orders", value: String(orders.length) }];
  setMetadata(counted);
  log("info", "priced", counted);
}

function price(shop: Client, item: string): bigint {
  const query = [{ name: "item", value: item }];
  using answer = shop.send({ method: "GET", path: "price", query, headers: [], body: new Uint8Array() });
  if (answer.status() !== 200) {
    throw { tag: "permanent", val: `the price of ${item}: status ${answer.status()}` } satisfies Failure;
  }
  return BigInt(readAll(answer));
}

function readInput(name: string): string {
  using reader = openInput(name, 0);
  return readAll(reader);
}

function readAll(from: { read(max: number): Uint8Array }): string {
  const bytes: number[] = [];
  for (let chunk = from.read(CHUNK_BYTES); chunk.length > 0; chunk = from.read(CHUNK_BYTES)) {
    bytes.push(...chunk);
  }
  return decoded(bytes);
}

function write(text: string): void {
  writeBytes(encoded(text));
}

function failure(error: unknown): unknown {
  log("info", `DEBUG ${typeof error} ${error} ${JSON.stringify(error)} ${(error as any)?.constructor?.name} ${(error as any)?.stack}`, []);
  return error;
}

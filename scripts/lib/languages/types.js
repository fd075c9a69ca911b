// Writes the types of a world, for editors and for tsc: node types.js WIT WORLD FOLDER
//
// They say bigint where WIT has 64 bits; componentize-qjs takes and gives numbers there.

import { mkdir, writeFile } from "node:fs/promises";
import { dirname } from "node:path";

import { generateGuestTypes } from "@bytecodealliance/jco-transpile";

const [wit, worldName, outDir] = process.argv.slice(2);
for (const [path, bytes] of Object.entries(await generateGuestTypes(wit, { worldName, outDir }))) {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, new TextDecoder().decode(bytes).replaceAll(/\bbigint\b/g, "number"));
}

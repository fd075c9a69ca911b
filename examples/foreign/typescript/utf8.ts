// QuickJS has no TextEncoder and no TextDecoder.

/** The UTF-8 of a text. */
export function encoded(text: string): Uint8Array {
  const escapes = encodeURIComponent(text).match(/%..|./g) ?? [];
  return Uint8Array.from(escapes, (one) => (one.length > 1 ? parseInt(one.slice(1), 16) : one.charCodeAt(0)));
}

/** The text of some UTF-8; throws where it is none. */
export function decoded(bytes: Iterable<number>): string {
  return decodeURIComponent(Array.from(bytes, (byte) => `%${byte.toString(16).padStart(2, "0")}`).join(""));
}

// The invoice, in C: bindings of the WIT package by wit-bindgen, compiled with clang.
//
// An instance lives for one attempt, so what the host hands over is not freed; handles are dropped all the same.
// What `describe` and `materialize` return is freed by the generated code: it must come from malloc.

#include "invoice.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef flowstone_asset_types_capability_error_t capability_error;
typedef flowstone_asset_types_failure_t failure;
typedef flowstone_asset_types_field_t field;

enum { CHUNK_BYTES = 1 << 20 };

// Text in a buffer that grows.
typedef struct {
  char *bytes;
  size_t length;
} text;

static void append(text *to, const void *bytes, size_t length) {
  to->bytes = realloc(to->bytes, to->length + length + 1);
  assert(to->bytes);
  memcpy(to->bytes + to->length, bytes, length);
  to->length += length;
  to->bytes[to->length] = '\0';
}

// A text that is only lent: for arguments.
static invoice_string_t lent(const char *bytes) {
  invoice_string_t string;
  invoice_string_set(&string, bytes);
  return string;
}

// A text of its own: for what is returned.
static invoice_string_t owned(const char *bytes) {
  invoice_string_t string;
  invoice_string_dup(&string, bytes);
  return string;
}

void exports_flowstone_asset_definitions_describe(exports_flowstone_asset_definitions_list_asset_t *ret) {
  exports_flowstone_asset_definitions_input_t *input = calloc(1, sizeof *input);
  input->name = owned("orders");
  input->asset = owned("orders");
  input->mapping.tag = EXPORTS_FLOWSTONE_ASSET_DEFINITIONS_MAPPING_SAME;

  exports_flowstone_asset_definitions_requirement_t *shop = calloc(1, sizeof *shop);
  shop->resource_name = owned("shop");
  shop->capability = EXPORTS_FLOWSTONE_ASSET_DEFINITIONS_CAPABILITY_HTTP;
  shop->reason = owned("asks for prices");

  exports_flowstone_asset_definitions_asset_t *asset = calloc(1, sizeof *asset);
  asset->name = owned("invoice_c");
  asset->description = owned("Orders with their prices.");
  asset->kind = EXPORTS_FLOWSTONE_ASSET_DEFINITIONS_KIND_PLAIN;
  asset->inputs = (exports_flowstone_asset_definitions_list_input_t){input, 1};
  asset->requirements = (exports_flowstone_asset_definitions_list_requirement_t){shop, 1};
  asset->media_type = owned("text/csv");
  *ret = (exports_flowstone_asset_definitions_list_asset_t){asset, 1};
}

// Each step says with false that it failed, and why with `why`.

static bool fail(failure *why, const char *format, ...) {
  char *message;
  va_list arguments;
  va_start(arguments, format);
  int length = vasprintf(&message, format, arguments);
  va_end(arguments);
  assert(length >= 0);
  why->tag = FLOWSTONE_ASSET_TYPES_FAILURE_PERMANENT;
  why->val.permanent = owned(message);
  return false;
}

// What the host refused. What may pass is worth another attempt.
static bool refused(failure *why, const char *doing, const capability_error *error) {
  switch (error->tag) {
  case FLOWSTONE_ASSET_TYPES_CAPABILITY_ERROR_UNAVAILABLE:
    fail(why, "%s: unavailable: %.*s", doing, (int)error->val.unavailable.len, error->val.unavailable.ptr);
    flowstone_asset_types_retry_t retry = {.message = why->val.permanent};
    why->tag = FLOWSTONE_ASSET_TYPES_FAILURE_RETRYABLE;
    why->val.retryable = retry;
    return false;
  case FLOWSTONE_ASSET_TYPES_CAPABILITY_ERROR_LIMIT_REACHED:
  case FLOWSTONE_ASSET_TYPES_CAPABILITY_ERROR_INVALID:
    return fail(why, "%s: %.*s", doing, (int)error->val.invalid.len, error->val.invalid.ptr);
  case FLOWSTONE_ASSET_TYPES_CAPABILITY_ERROR_DENIED:
    return fail(why, "%s: denied", doing);
  default:
    return fail(why, "%s: error %d", doing, error->tag);
  }
}

static bool read_orders(text *orders, failure *why) {
  invoice_string_t name = lent("orders");
  flowstone_asset_inputs_own_reader_t reader;
  capability_error error;
  if (!flowstone_asset_inputs_open(&name, 0, &reader, &error)) return refused(why, "opening the orders", &error);
  invoice_list_u8_t chunk;
  do {
    if (!flowstone_asset_inputs_method_reader_read(flowstone_asset_inputs_borrow_reader(reader), CHUNK_BYTES, &chunk, &error))
      return refused(why, "reading the orders", &error);
    append(orders, chunk.ptr, chunk.len);
  } while (chunk.len > 0);
  flowstone_asset_inputs_reader_drop_own(reader);
  return true;
}

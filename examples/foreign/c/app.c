// The invoice, in C: bindings of the WIT package by wit-bindgen, compiled with clang.
//
// An instance lives for one attempt, so what the host hands over is not freed; handles are dropped all the same.
// What `describe` and `materialize` return is freed by the generated code: it must come from malloc.

#include "invoice.h"

// `zig cc` defines it where it optimises; these checks are wanted.
#undef NDEBUG
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Shorter names for what the bindings call after the package and the interface.
typedef exports_flowstone_asset_definitions_asset_t asset;
typedef exports_flowstone_asset_definitions_input_t input;
typedef exports_flowstone_asset_definitions_requirement_t requirement;
typedef exports_flowstone_asset_materializer_outcome_t outcome;
typedef flowstone_asset_http_borrow_client_t client;
typedef flowstone_asset_key_value_borrow_bucket_t bucket;
typedef flowstone_asset_types_capability_error_t capability_error;
typedef flowstone_asset_types_failure_t failure;
typedef flowstone_asset_types_field_t field;
typedef invoice_list_u8_t bytes;
typedef invoice_string_t string;

enum { CHUNK_BYTES = 1 << 20 };

// ---- texts ----

// Lent: for arguments.
static string lent(const char *text) {
  string s;
  invoice_string_set(&s, text);
  return s;
}

// Its own: for what is returned.
static string owned(const char *text) {
  string s;
  invoice_string_dup(&s, text);
  return s;
}

__attribute__((format(printf, 1, 2))) static char *format(const char *format, ...) {
  char *text;
  va_list arguments;
  va_start(arguments, format);
  int length = vasprintf(&text, format, arguments);
  va_end(arguments);
  assert(length >= 0 && "there is memory");
  return text;
}

// With the NUL at its end that C wants.
static char *copied(string s) { return format("%.*s", (int)s.len, (char *)s.ptr); }

// Puts more behind a text that ends with NUL.
static void append(bytes *text, bytes more) {
  text->ptr = realloc(text->ptr, text->len + more.len + 1);
  assert(text->ptr && "there is memory");
  if (more.len > 0) memcpy(text->ptr + text->len, more.ptr, more.len);
  text->len += more.len;
  text->ptr[text->len] = '\0';
}

static uint64_t number(const char *text) {
  char *end;
  uint64_t value = strtoull(text, &end, 10);
  assert(end > text && *end == '\0' && "it is a number");
  return value;
}

// ---- failures: each step says with false that it failed, and with `why` how ----

static bool fail(failure *why, const char *message) {
  why->tag = FLOWSTONE_ASSET_TYPES_FAILURE_PERMANENT;
  why->val.permanent = owned(message);
  return false;
}

// The host refused something. What may pass is worth another attempt.
static bool refused(failure *why, const char *what, const capability_error *error) {
  switch (error->tag) {
  case FLOWSTONE_ASSET_TYPES_CAPABILITY_ERROR_DENIED:
    return fail(why, format("%s: denied", what));
  case FLOWSTONE_ASSET_TYPES_CAPABILITY_ERROR_NOT_FOUND:
    return fail(why, format("%s: not found", what));
  case FLOWSTONE_ASSET_TYPES_CAPABILITY_ERROR_CONFLICT:
    return fail(why, format("%s: conflict", what));
  case FLOWSTONE_ASSET_TYPES_CAPABILITY_ERROR_LIMIT_REACHED:
    return fail(why, format("%s: limit reached: %s", what, copied(error->val.limit_reached)));
  case FLOWSTONE_ASSET_TYPES_CAPABILITY_ERROR_INVALID:
    return fail(why, format("%s: invalid: %s", what, copied(error->val.invalid)));
  default:
    why->tag = FLOWSTONE_ASSET_TYPES_FAILURE_RETRYABLE;
    why->val.retryable.message = owned(format("%s: unavailable: %s", what, copied(error->val.unavailable)));
    why->val.retryable.after_ms.is_some = false;
    return false;
  }
}

// ---- the asset ----

void exports_flowstone_asset_definitions_describe(exports_flowstone_asset_definitions_list_asset_t *ret) {
  input *orders = calloc(1, sizeof *orders);
  orders->name = owned("orders");
  orders->asset = owned("orders");
  orders->mapping.tag = EXPORTS_FLOWSTONE_ASSET_DEFINITIONS_MAPPING_SAME;

  requirement *requirements = calloc(2, sizeof *requirements);
  requirements[0].resource_name = owned("shop");
  requirements[0].capability = EXPORTS_FLOWSTONE_ASSET_DEFINITIONS_CAPABILITY_HTTP;
  requirements[0].reason = owned("asks for prices");
  requirements[1].resource_name = owned("prices");
  requirements[1].capability = EXPORTS_FLOWSTONE_ASSET_DEFINITIONS_CAPABILITY_KEY_VALUE;
  requirements[1].reason = owned("remembers prices");

  asset *invoice = calloc(1, sizeof *invoice);
  invoice->name = owned("invoice_c");
  invoice->description = owned("Orders with their prices.");
  invoice->kind = EXPORTS_FLOWSTONE_ASSET_DEFINITIONS_KIND_PLAIN;
  invoice->inputs.ptr = orders;
  invoice->inputs.len = 1;
  invoice->requirements.ptr = requirements;
  invoice->requirements.len = 2;
  invoice->media_type = owned("text/csv");
  ret->ptr = invoice;
  ret->len = 1;
}

static bool read_orders(bytes *orders, failure *why) {
  string name = lent("orders");
  flowstone_asset_inputs_own_reader_t reader;
  capability_error error;
  if (!flowstone_asset_inputs_open(&name, 0, &reader, &error)) return refused(why, "the orders", &error);
  flowstone_asset_inputs_borrow_reader_t from = flowstone_asset_inputs_borrow_reader(reader);
  bytes chunk;
  do {
    if (!flowstone_asset_inputs_method_reader_read(from, CHUNK_BYTES, &chunk, &error))
      return refused(why, "the orders", &error);
    append(orders, chunk);
  } while (chunk.len > 0);
  flowstone_asset_inputs_reader_drop_own(reader);
  return true;
}

static bool write_text(const char *text, failure *why) {
  bytes all = {(uint8_t *)text, strlen(text)};
  capability_error error;
  if (!flowstone_asset_output_write(&all, &error)) return refused(why, "the output", &error);
  return true;
}

static bool ask_for_price(client shop, const char *item, bytes *price, failure *why) {
  const char *what = format("the price of %s", item);
  field query = {lent("item"), lent(item)};
  flowstone_asset_http_request_t request = {.method = lent("GET"), .path = lent("price"), .query = {&query, 1}};
  flowstone_asset_http_own_response_t answer;
  capability_error error;
  if (!flowstone_asset_http_method_client_send(shop, &request, &answer, &error)) return refused(why, what, &error);
  flowstone_asset_http_borrow_response_t from = flowstone_asset_http_borrow_response(answer);
  int status = flowstone_asset_http_method_response_status(from);
  if (status != 200) return fail(why, format("%s: status %d", what, status));
  bytes chunk;
  do {
    if (!flowstone_asset_http_method_response_read(from, CHUNK_BYTES, &chunk, &error))
      return refused(why, what, &error);
    append(price, chunk);
  } while (chunk.len > 0);
  flowstone_asset_http_response_drop_own(answer);
  return true;
}

// What is remembered of an item, or what the shop says, which is remembered then.
static bool find_price(client shop, bucket prices, const char *asset, const char *item, uint64_t *cents, failure *why) {
  string key = lent(format("%s/price/%s", asset, item));
  string asked = lent(format("%s/asked", asset));
  flowstone_asset_key_value_option_versioned_t known;
  bytes price = {0};
  capability_error error;
  if (!flowstone_asset_key_value_method_bucket_get(prices, &key, &known, &error))
    return refused(why, "a remembered price", &error);
  if (known.is_some) {
    append(&price, known.val.value);
  } else {
    if (!ask_for_price(shop, item, &price, why)) return false;
    if (!flowstone_asset_key_value_method_bucket_set(prices, &key, &price, &error) ||
        !flowstone_asset_key_value_method_bucket_increment(prices, &asked, 1, &error))
      return refused(why, "remembering a price", &error);
  }
  *cents = number((char *)price.ptr);
  return true;
}

static bool write_invoice(client shop, bucket prices, const char *asset, failure *why) {
  bytes orders = {0};
  if (!read_orders(&orders, why) || !write_text("item,quantity,cents,total\n", why)) return false;
  uint64_t sum = 0;
  size_t lines = 0;
  for (char *line = strtok((char *)orders.ptr, "\n"); line; line = strtok(NULL, "\n")) {
    // The first names the columns.
    if (lines++ == 0) continue;
    char *comma = strchr(line, ',');
    assert(comma && "an order has two columns");
    *comma = '\0';
    uint64_t quantity = number(comma + 1), cents;
    if (!find_price(shop, prices, asset, line, &cents, why)) return false;
    sum += quantity * cents;
    char *row = format("%s,%" PRIu64 ",%" PRIu64 ",%" PRIu64 "\n", line, quantity, cents, quantity * cents);
    if (!write_text(row, why)) return false;
  }
  if (!write_text(format("sum,,,%" PRIu64 "\n", sum), why)) return false;

  field count = {lent("orders"), lent(format("%zu", lines - 1))};
  flowstone_asset_output_list_field_t metadata = {&count, 1};
  capability_error error;
  if (!flowstone_asset_output_set_metadata(&metadata, &error)) return refused(why, "the metadata", &error);
  string priced = lent("priced");
  flowstone_asset_log_list_field_t fields = {&count, 1};
  flowstone_asset_log_write(FLOWSTONE_ASSET_LOG_LEVEL_INFO, &priced, &fields);
  return true;
}

bool exports_flowstone_asset_materializer_materialize(string *name, outcome *ret, failure *why) {
  string shop_name = lent("shop"), prices_name = lent("prices");
  flowstone_asset_http_own_client_t shop;
  flowstone_asset_key_value_own_bucket_t prices;
  capability_error error;
  if (!flowstone_asset_http_open(&shop_name, &shop, &error)) return refused(why, "the shop", &error);
  if (!flowstone_asset_key_value_open(&prices_name, &prices, &error)) return refused(why, "the prices", &error);
  client asked = flowstone_asset_http_borrow_client(shop);
  bucket known = flowstone_asset_key_value_borrow_bucket(prices);
  bool made = write_invoice(asked, known, copied(*name), why);
  flowstone_asset_http_client_drop_own(shop);
  flowstone_asset_key_value_bucket_drop_own(prices);
  ret->tag = EXPORTS_FLOWSTONE_ASSET_MATERIALIZER_OUTCOME_DONE;
  return made;
}

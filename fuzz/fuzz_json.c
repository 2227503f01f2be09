/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `pageattn bench --compare FILE`: any bytes as the file. The parser takes it or says where it is
 * wrong; what it took is a tree, which written out and read again is the same; and a run is looked
 * for in it.
 */
#include <string.h>

#include "compare.h"
#include "../tests/fake_files.h"
#include "input.h"
#include "said.h"

/* ---- a document as text again ---- */

typedef struct writer {
    char *text;
    size_t length, capacity;
    size_t num_values;
} writer;

static void put(writer *out, const char *bytes, size_t count)
{
    if (out->length + count + 1 > out->capacity) {
        out->capacity = 2 * (out->length + count + 1);
        out->text = realloc(out->text, out->capacity);
        FUZZ_REQUIRE(out->text != NULL, "out of memory");
    }
    memcpy(out->text + out->length, bytes, count);
    out->length += count;
    out->text[out->length] = '\0';
}

static void put_string(writer *out, const char *string)
{
    char escape[8];
    put(out, "\"", 1);
    for (; *string != '\0'; string++) {
        const unsigned char c = (unsigned char)*string;
        if (c >= 0x20 && c != '"' && c != '\\')
            put(out, string, 1);
        else
            put(out, escape, (size_t)snprintf(escape, sizeof(escape), "\\u%04x", c));
    }
    put(out, "\"", 1);
}

static void put_value(writer *out, const cli_json_document *document, const cli_json *value,
                      int depth)
{
    static const char *const words[] = {"null", "false", "true"};
    char number[40];
    FUZZ_REQUIRE(++out->num_values <= document->num_values, "a value is met twice");
    if (value->name != NULL) {
        put_string(out, value->name);
        put(out, ":", 1);
    }
    if (value->type == CLI_JSON_NUMBER) {
        /* 1e999 is infinite, and JSON has no other word for it. */
        const int length = value->number > 1.7e308 ? snprintf(number, sizeof(number), "1e999")
                           : value->number < -1.7e308
                               ? snprintf(number, sizeof(number), "-1e999")
                               : snprintf(number, sizeof(number), "%.17g", value->number);
        put(out, number, (size_t)length);
    } else if (value->type == CLI_JSON_STRING) {
        put_string(out, value->string);
    } else if (value->type == CLI_JSON_ARRAY || value->type == CLI_JSON_OBJECT) {
        FUZZ_REQUIRE(depth < CLI_JSON_MAX_DEPTH, "depth %d", depth);
        put(out, value->type == CLI_JSON_ARRAY ? "[" : "{", 1);
        const cli_json *child = cli_json_first(document, value);
        for (; child != NULL; child = cli_json_next(document, child)) {
            put_value(out, document, child, depth + 1);
            if (cli_json_next(document, child) != NULL)
                put(out, ",", 1);
        }
        put(out, value->type == CLI_JSON_ARRAY ? "]" : "}", 1);
    } else {
        put(out, words[value->type], strlen(words[value->type]));
    }
}

static writer write_document(const cli_json_document *document)
{
    writer out = {0};
    put_value(&out, document, &document->values[0], 0);
    FUZZ_REQUIRE(out.num_values == document->num_values, "%zu of %zu values can be reached",
                 out.num_values, document->num_values);
    return out;
}

/* ---- what must hold ---- */

/* Takes a text of any length; empty if it is no JSON. */
static writer parse_and_write(const char *bytes, size_t length, int must_be_json)
{
    char *text = malloc(length + 1);
    cli_json_document document;
    size_t place = 0;
    writer written = {0};
    FUZZ_REQUIRE(text != NULL, "out of memory");
    memcpy(text, bytes, length);
    text[length] = '\0';
    const char *error = cli_json_parse(text, length, &document, &place);
    FUZZ_REQUIRE(place <= length, "an error at byte %zu of %zu", place, length);
    FUZZ_REQUIRE(error == NULL || (!must_be_json && *error != '\0'), "%s", error);
    if (error == NULL)
        written = write_document(&document);
    else
        FUZZ_REQUIRE(document.values == NULL && document.num_values == 0, "not empty");
    cli_json_free(&document);
    free(text);
    return written;
}

static void look_for_a_run(const char *bytes, size_t length)
{
    cli_row row = {.wanted = {.kv_type = PAGEATTN_BF16, .num_seqs = 8},
                   .num_threads = 1,
                   .isa = PAGEATTN_ISA_SCALAR};
    const fake_file file = {"old.json", bytes, length};
    cli_old_run old;
    said_reset();
    fake_files_show(&file, 1);
    const bool is_run = cli_old_run_read("old.json", &old);
    FUZZ_REQUIRE(fake_files_hide() == 0, "files are still open");
    FUZZ_REQUIRE(said_count() == !is_run, "%d sentences", said_count());
    if (!is_run)
        return;
    const bool found = cli_old_run_find(&old, &row);
    FUZZ_REQUIRE(found == (row.old_gb_per_s > 0 && row.old_of_gather > 0), "found: %d", found);
    cli_old_run_free(&old);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t num_bytes)
{
    const char *text = (const char *)bytes;
    writer once = parse_and_write(text, num_bytes, 0);
    if (once.text != NULL) {
        writer twice = parse_and_write(once.text, once.length, 1);
        FUZZ_REQUIRE(once.length == twice.length && memcmp(once.text, twice.text, once.length) == 0,
                     "%s is %s when read again", once.text, twice.text);
        free(twice.text);
    }
    /* It is slow: its buffer is as large as a file may be. */
    if (once.text != NULL && strstr(once.text, "pageattn bench") != NULL)
        look_for_a_run(text, num_bytes);
    free(once.text);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads JSON text, whoever wrote it: any bytes give a document or an error with its place, within
 * fixed bounds of size and depth.
 */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include <stddef.h>

#define CLI_JSON_MAX_BYTES (16 << 20)
#define CLI_JSON_MAX_DEPTH 16

typedef enum cli_json_type {
    CLI_JSON_NULL,
    CLI_JSON_FALSE,
    CLI_JSON_TRUE,
    CLI_JSON_NUMBER,
    CLI_JSON_STRING,
    CLI_JSON_ARRAY,
    CLI_JSON_OBJECT,
} cli_json_type;

typedef struct cli_json {
    cli_json_type type;
    double number;
    const char *string; /* without quotes and escapes, ended by a NUL */
    const char *name;   /* of a member of an object; else NULL */
    size_t first;       /* of an array or object: index of its first child; 0: empty */
    size_t next;        /* index of the next child of the same parent; 0: none */
} cli_json;

typedef struct cli_json_document {
    char *text;
    cli_json *values; /* [0] is the whole */
    size_t num_values;
    size_t capacity;
} cli_json_document;

/* Takes text[0 .. length), which it changes, and which must end with a NUL at text[length]. On an
 * error (or when out of memory) returns a sentence, and the document is empty; else NULL. */
const char *cli_json_parse(char *text, size_t length, cli_json_document *document,
                           size_t *error_place);
void cli_json_free(cli_json_document *document); /* not the text */

/* The member of that name, or NULL: also where `value` is NULL or no object. */
const cli_json *cli_json_member(const cli_json_document *document, const cli_json *value,
                                const char *name);

/* The children of an array or object, one after the other: NULL after the last. */
const cli_json *cli_json_first(const cli_json_document *document, const cli_json *value);
const cli_json *cli_json_next(const cli_json_document *document, const cli_json *value);

#endif

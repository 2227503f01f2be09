/* SPDX-License-Identifier: Apache-2.0 */
#include "compare.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "say.h"

/* Reads at most a byte more than the parser takes, so that it refuses what is too large. */
static char *read_file(const char *path, size_t *length)
{
    const size_t capacity = CLI_JSON_MAX_BYTES + 2;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        cli_say("cannot open %s: %s", path, strerror(errno));
        return NULL;
    }
    char *text = malloc(capacity);
    errno = 0;
    *length = text == NULL ? 0 : fread(text, 1, capacity - 1, file);
    if (text == NULL) {
        cli_say("out of memory for %s", path);
    } else if (ferror(file)) {
        cli_say("cannot read %s: %s", path, strerror(errno));
        free(text);
        text = NULL;
    } else {
        text[*length] = '\0';
    }
    fclose(file);
    return text;
}

static bool is_run(const cli_json_document *document)
{
    const cli_json *format = cli_json_member(document, &document->values[0], "format");
    const cli_json *results = cli_json_member(document, &document->values[0], "results");
    return format != NULL && format->type == CLI_JSON_STRING &&
           strcmp(format->string, "pageattn bench 2") == 0 && results != NULL &&
           results->type == CLI_JSON_ARRAY;
}

bool cli_old_run_read(const char *path, cli_old_run *old)
{
    size_t length = 0, place;
    *old = (cli_old_run){.text = read_file(path, &length)};
    if (old->text == NULL)
        return false;
    const char *error = cli_json_parse(old->text, length, &old->document, &place);
    if (error != NULL) {
        cli_say("%s is not JSON, at byte %zu: %s", path, place, error);
    } else if (!is_run(&old->document)) {
        cli_say("%s is not a result of pageattn bench --format json of this version", path);
    } else {
        old->results = cli_json_member(&old->document, &old->document.values[0], "results");
        return true;
    }
    cli_old_run_free(old);
    return false;
}

void cli_old_run_free(cli_old_run *old)
{
    cli_json_free(&old->document);
    free(old->text);
    *old = (cli_old_run){0};
}

static bool same_text(const cli_json *value, const char *text)
{
    return value != NULL && value->type == CLI_JSON_STRING && strcmp(value->string, text) == 0;
}

static bool same_int(const cli_json *value, int64_t number)
{
    return value != NULL && value->type == CLI_JSON_NUMBER && value->number == (double)number;
}

static bool same_case(const cli_old_run *old, const cli_json *result, const cli_row *row)
{
    bool same = true;
#define KEY_TEXT(name, expression)                                                                 \
    same = same && same_text(cli_json_member(&old->document, result, #name), expression);
#define KEY_INT(name, expression)                                                                  \
    same = same && same_int(cli_json_member(&old->document, result, #name), expression);
#define TEXT(name, expression)
#define INT(name, expression)
#define NUMBER(name, expression)
#include "report_fields.def"
#undef KEY_TEXT
#undef KEY_INT
#undef TEXT
#undef INT
#undef NUMBER
    return same;
}

/* 0 unless it is a number that can be divided by. */
static double positive(const cli_json *value)
{
    if (value == NULL || value->type != CLI_JSON_NUMBER || !isfinite(value->number))
        return 0;
    return value->number > 0 ? value->number : 0;
}

bool cli_old_run_find(const cli_old_run *old, cli_row *row)
{
    const cli_json *result = cli_json_first(&old->document, old->results);
    while (result != NULL && !same_case(old, result, row))
        result = cli_json_next(&old->document, result);
    row->old_gb_per_s = positive(cli_json_member(&old->document, result, "gb_per_s"));
    row->old_of_gather = positive(cli_json_member(&old->document, result, "of_gather"));
    if (row->old_gb_per_s > 0 && row->old_of_gather > 0)
        return true;
    row->old_gb_per_s = row->old_of_gather = 0;
    return false;
}

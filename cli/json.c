/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recursive descent, as deep as CLI_JSON_MAX_DEPTH. Values are numbered in one growing array, so
 * they refer to each other by index. Strings are unescaped in place, where they never get longer.
 */
#include "json.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct parser {
    char *at;
    const char *end; /* *end is NUL */
    const char *error;
    cli_json_document *document;
    int depth;
} parser;

static bool fail(parser *p, const char *error)
{
    if (p->error == NULL)
        p->error = error;
    return false;
}

static void skip_blanks(parser *p)
{
    while (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')
        p->at++;
}

/* ---- strings ---- */

static bool read_hex4(parser *p, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++, p->at++) {
        const char c = *p->at;
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return fail(p, "\\u needs four hexadecimal digits");
        *code = *code * 16 + (uint32_t)digit;
    }
    return true;
}

/* At most 3 bytes for the 6 of an escape, 4 for the 12 of a pair. */
static char *put_utf8(char *out, uint32_t code)
{
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xc0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *out++ = (char)(0xe0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3f));
        *out++ = (char)(0x80 | (code & 0x3f));
    } else {
        *out++ = (char)(0xf0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 0x3f));
        *out++ = (char)(0x80 | (code >> 6 & 0x3f));
        *out++ = (char)(0x80 | (code & 0x3f));
    }
    return out;
}

/* After "\u". */
static bool read_code_point(parser *p, char **out)
{
    uint32_t code, low;
    if (!read_hex4(p, &code))
        return false;
    if (code == 0)
        return fail(p, "a string holds a NUL");
    if (code >= 0xd800 && code < 0xe000) {
        if (code >= 0xdc00 || p->at[0] != '\\' || p->at[1] != 'u')
            return fail(p, "half of a surrogate pair");
        p->at += 2;
        if (!read_hex4(p, &low))
            return false;
        if (low < 0xdc00 || low >= 0xe000)
            return fail(p, "half of a surrogate pair");
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    *out = put_utf8(*out, code);
    return true;
}

static bool read_escape(parser *p, char **out)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char c = *p->at;
    if (c == 'u') {
        p->at++;
        return read_code_point(p, out);
    }
    const char *name = c == '\0' ? NULL : strchr(names, c);
    if (name == NULL)
        return fail(p, "an unknown escape in a string");
    p->at++;
    *(*out)++ = values[name - names];
    return true;
}

static bool read_string(parser *p, const char **string)
{
    if (*p->at != '"')
        return fail(p, "a string was expected");
    char *out = ++p->at;
    *string = out;
    while (*p->at != '"') {
        if ((unsigned char)*p->at < 0x20)
            return fail(p, "a string is not closed, or holds a control character");
        if (*p->at != '\\') {
            *out++ = *p->at++;
            continue;
        }
        p->at++;
        if (!read_escape(p, &out))
            return false;
    }
    p->at++;
    *out = '\0';
    return true;
}

/* ---- numbers ---- */

static bool read_digits(parser *p, const char **at)
{
    if (**at < '0' || **at > '9')
        return fail(p, "a digit was expected");
    while (**at >= '0' && **at <= '9')
        (*at)++;
    return true;
}

/* The grammar is checked here, because strtod takes more: hexadecimal numbers, "inf", "nan". */
static bool read_number(parser *p, double *number)
{
    const char *at = p->at;
    at += *at == '-';
    if (at[0] == '0' && at[1] >= '0' && at[1] <= '9')
        return fail(p, "a number starts with 0");
    if (!read_digits(p, &at))
        return false;
    if (*at == '.') {
        at++;
        if (!read_digits(p, &at))
            return false;
    }
    if (*at == 'e' || *at == 'E') {
        at += 1 + (at[1] == '+' || at[1] == '-');
        if (!read_digits(p, &at))
            return false;
    }
    *number = strtod(p->at, NULL);
    p->at += at - p->at;
    return true;
}

/* ---- values ---- */

static bool add_value(parser *p, size_t *index)
{
    cli_json_document *document = p->document;
    if (document->num_values == document->capacity) {
        const size_t capacity = document->capacity ? 2 * document->capacity : 64;
        cli_json *values = realloc(document->values, capacity * sizeof(*values));
        if (values == NULL)
            return fail(p, "out of memory");
        document->values = values;
        document->capacity = capacity;
    }
    *index = document->num_values++;
    document->values[*index] = (cli_json){.type = CLI_JSON_NULL};
    return true;
}

static bool read_value(parser *p, size_t *index);

static bool read_member_name(parser *p, const char **name)
{
    skip_blanks(p);
    if (!read_string(p, name))
        return false;
    skip_blanks(p);
    if (*p->at != ':')
        return fail(p, "a colon was expected after a member's name");
    p->at++;
    return true;
}

/* The children of value `parent`, after its opening bracket. */
static bool read_children(parser *p, size_t parent, bool named, char close)
{
    size_t last = 0;
    skip_blanks(p);
    if (*p->at == close) {
        p->at++;
        return true;
    }
    for (;;) {
        const char *name = NULL;
        size_t child;
        if ((named && !read_member_name(p, &name)) || !read_value(p, &child))
            return false;
        cli_json *values = p->document->values;
        values[child].name = name;
        if (last == 0)
            values[parent].first = child;
        else
            values[last].next = child;
        last = child;
        skip_blanks(p);
        if (*p->at != ',' && *p->at != close)
            return fail(p, "a comma or a closing bracket was expected");
        if (*p->at++ == close)
            return true;
    }
}

static bool read_nested(parser *p, size_t parent)
{
    const bool named = *p->at++ == '{';
    if (++p->depth > CLI_JSON_MAX_DEPTH)
        return fail(p, "too deeply nested");
    p->document->values[parent].type = named ? CLI_JSON_OBJECT : CLI_JSON_ARRAY;
    const bool done = read_children(p, parent, named, named ? '}' : ']');
    p->depth--;
    return done;
}

static bool read_word(parser *p, cli_json *value)
{
    static const struct {
        const char *text;
        cli_json_type type;
    } words[] = {{"null", CLI_JSON_NULL}, {"false", CLI_JSON_FALSE}, {"true", CLI_JSON_TRUE}};
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        const size_t length = strlen(words[i].text);
        if (strncmp(p->at, words[i].text, length) == 0) {
            p->at += length;
            value->type = words[i].type;
            return true;
        }
    }
    return fail(p, "a value was expected");
}

static bool read_value(parser *p, size_t *index)
{
    skip_blanks(p);
    if (!add_value(p, index))
        return false;
    cli_json *value = &p->document->values[*index];
    const char c = *p->at;
    if (c == '{' || c == '[')
        return read_nested(p, *index);
    if (c == '"') {
        value->type = CLI_JSON_STRING;
        return read_string(p, &value->string);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        value->type = CLI_JSON_NUMBER;
        return read_number(p, &value->number);
    }
    return read_word(p, value);
}

// NOLINTNEXTLINE(readability-non-const-parameter): strings are unescaped in place
const char *cli_json_parse(char *text, size_t length, cli_json_document *document,
                           size_t *error_place)
{
    parser p = {.at = text, .end = text + length, .document = document};
    size_t index;
    *document = (cli_json_document){.text = text};
    if (length > CLI_JSON_MAX_BYTES)
        fail(&p, "the file is too large");
    else if (read_value(&p, &index)) {
        skip_blanks(&p);
        if (p.at != p.end)
            fail(&p, "there is something after the value");
    }
    *error_place = (size_t)(p.at - text);
    if (p.error != NULL)
        cli_json_free(document);
    return p.error;
}

void cli_json_free(cli_json_document *document)
{
    free(document->values);
    *document = (cli_json_document){0};
}

/* ---- looking at it ---- */

const cli_json *cli_json_first(const cli_json_document *document, const cli_json *value)
{
    return value == NULL || value->first == 0 ? NULL : &document->values[value->first];
}

const cli_json *cli_json_next(const cli_json_document *document, const cli_json *value)
{
    return value->next == 0 ? NULL : &document->values[value->next];
}

const cli_json *cli_json_member(const cli_json_document *document, const cli_json *value,
                                const char *name)
{
    if (value == NULL || value->type != CLI_JSON_OBJECT)
        return NULL;
    const cli_json *member = cli_json_first(document, value);
    while (member != NULL && strcmp(member->name, name) != 0)
        member = cli_json_next(document, member);
    return member;
}

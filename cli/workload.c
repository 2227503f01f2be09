/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"
#include "say.h"

#define LENGTHS_SEED 7

/* ---- names ---- */

bool cli_parse_int(const char *text, int64_t low, int64_t high, int64_t *value)
{
    int64_t number = 0;
    const char *digit = text;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        if (number > (INT64_MAX - 9) / 10)
            return false;
        number = number * 10 + (*digit - '0');
    }
    if (digit == text || *digit != '\0' || number < low || number > high)
        return false;
    *value = number;
    return true;
}

/* Where one part of a name ("kv8") goes. */
typedef struct name_part {
    const char *key;
    int64_t high; /* the value is in [1, high] */
    bool needed;
    int64_t *value;
} name_part;

#define NUM_PARTS 6

static bool read_part(const char *name, const char *text, const name_part *parts, bool *seen)
{
    const size_t key_length = strcspn(text, "0123456789");
    for (int i = 0; i < NUM_PARTS; i++) {
        if (strlen(parts[i].key) != key_length || strncmp(parts[i].key, text, key_length) != 0)
            continue;
        if (seen[i]) {
            cli_say("workload \"%.80s\" says %s twice", name, parts[i].key);
            return false;
        }
        seen[i] = true;
        if (cli_parse_int(text + key_length, 1, parts[i].high, parts[i].value))
            return true;
        cli_say("workload \"%.80s\": the number after %s must be in [1, %" PRId64 "]", name,
                parts[i].key, parts[i].high);
        return false;
    }
    cli_say("workload \"%.80s\": \"%.40s\" is none of h, kv, d, ps, w, cap and a number", name,
            text);
    return false;
}

static bool read_parts(const char *name, const char *text, cli_workload *workload)
{
    const name_part parts[NUM_PARTS] = {
        {"h", CLI_MAX_HEADS, true, &workload->num_heads},
        {"kv", CLI_MAX_HEADS, true, &workload->num_kv_heads},
        {"d", CLI_MAX_HEAD_DIM, true, &workload->head_dim},
        {"ps", CLI_MAX_PAGE_SIZE, false, &workload->page_size},
        {"w", INT32_MAX, false, &workload->window},
        {"cap", 1000000, false, &workload->soft_cap},
    };
    bool seen[NUM_PARTS] = {false};
    while (*text != '\0') {
        char part[32];
        const size_t length = strcspn(text, "_");
        snprintf(part, sizeof(part), "%.*s", length < 31 ? (int)length : 31, text);
        if (!read_part(name, part, parts, seen))
            return false;
        text += length + (text[length] == '_');
    }
    for (int i = 0; i < NUM_PARTS; i++) {
        if (parts[i].needed && !seen[i]) {
            cli_say(
                "workload \"%.80s\" lacks %s; a whole name is gqa_paged_decode_h32_kv8_d128_ps16",
                name, parts[i].key);
            return false;
        }
    }
    return true;
}

static const char *kind_of(const cli_workload *workload)
{
    if (workload->num_heads == workload->num_kv_heads)
        return "mha";
    return workload->num_kv_heads == 1 ? "mqa" : "gqa";
}

static bool check_shape(const char *name, const cli_workload *workload)
{
    const int64_t elements_per_read = 8; /* of 2 bytes, in CLI_READ_BYTES */
    if (workload->num_heads % workload->num_kv_heads != 0) {
        cli_say("workload \"%.80s\": h%" PRId64 " is not a multiple of kv%" PRId64, name,
                workload->num_heads, workload->num_kv_heads);
        return false;
    }
    if (workload->head_dim % elements_per_read != 0) {
        cli_say("workload \"%.80s\": d%" PRId64 " is not a multiple of %" PRId64
                ", which the read limits need",
                name, workload->head_dim, elements_per_read);
        return false;
    }
    if (strncmp(name, "gqa", 3) != 0 && strncmp(name, kind_of(workload), 3) != 0) {
        cli_say("workload \"%.80s\": %.3s with h%" PRId64 " and kv%" PRId64
                "; mha has as many KV heads as heads, mqa has one",
                name, name, workload->num_heads, workload->num_kv_heads);
        return false;
    }
    return true;
}

bool cli_workload_parse(const char *name, cli_workload *workload)
{
    static const char *const kinds[] = {"gqa", "mqa", "mha"};
    const char *rest = "_paged_decode_";
    *workload = (cli_workload){.page_size = CLI_DEFAULT_PAGE_SIZE};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        if (strncmp(name, kinds[i], 3) == 0 && strncmp(name + 3, rest, strlen(rest)) == 0)
            return read_parts(name, name + 3 + strlen(rest), workload) &&
                   check_shape(name, workload);
    }
    cli_say("\"%.80s\" is no workload; a name looks like gqa_paged_decode_h32_kv8_d128_ps16 "
            "(pageattn bench --list says more)",
            name);
    return false;
}

char *cli_workload_name(const cli_workload *workload, char name[CLI_NAME_BYTES])
{
    int length = snprintf(name, CLI_NAME_BYTES,
                          "%s_paged_decode_h%" PRId64 "_kv%" PRId64 "_d%" PRId64 "_ps%" PRId64,
                          kind_of(workload), workload->num_heads, workload->num_kv_heads,
                          workload->head_dim, workload->page_size);
    if (workload->window)
        length += snprintf(name + length, CLI_NAME_BYTES - (size_t)length, "_w%" PRId64,
                           workload->window);
    if (workload->soft_cap)
        snprintf(name + length, CLI_NAME_BYTES - (size_t)length, "_cap%" PRId64,
                 workload->soft_cap);
    return name;
}

/* ---- models ---- */

static const struct model {
    const char *name;
    cli_workload workload;
} models[] = {
#define MODEL(name, heads, kv_heads, head_dim, window, soft_cap)                                   \
    {name, {heads, kv_heads, head_dim, CLI_DEFAULT_PAGE_SIZE, window, soft_cap}},
#include "models.def"
#undef MODEL
};
#define NUM_MODELS ((int)(sizeof(models) / sizeof(*models)))

const char *cli_model_name(int index)
{
    return index < NUM_MODELS ? models[index].name : NULL;
}

bool cli_workload_of_model(const char *model, cli_workload *workload)
{
    for (int i = 0; i < NUM_MODELS; i++) {
        if (strcmp(models[i].name, model) == 0) {
            *workload = models[i].workload;
            return true;
        }
    }
    cli_say("no model is named \"%.80s\"; pageattn bench --list names them", model);
    return false;
}

/* ---- lengths ---- */

#define RAGGED_LONG 100000
#define RAGGED_SHORT 50
#define CHAT_MEDIAN 700.0
#define CHAT_LONGEST 8192

bool cli_lengths_parse(const char *text, cli_lengths *lengths)
{
    *lengths = (cli_lengths){.default_batch = 8};
    if (strcmp(text, "ragged") == 0 || strcmp(text, "chat") == 0)
        lengths->default_batch = 32;
    else if (!cli_parse_int(text, 1, CLI_MAX_CONTEXT, &lengths->fixed)) {
        cli_say("--context %.40s: it must be a number of tokens in [1, %" PRId64
                "], ragged, or chat",
                text, CLI_MAX_CONTEXT);
        return false;
    }
    snprintf(lengths->name, sizeof(lengths->name), "%s", text);
    return true;
}

/* Conversations: many short ones and a long tail. Log-normal, with a factor of e for one standard
 * deviation; the sum of twelve uniform numbers is normal enough. */
static int32_t chat_length(uint64_t *random)
{
    double deviation = -6;
    for (int i = 0; i < 12; i++)
        deviation += (double)(cli_random(random) >> 11) * 0x1p-53;
    const double length = CHAT_MEDIAN * exp(deviation);
    return length < 1 ? 1 : length > CHAT_LONGEST ? CHAT_LONGEST : (int32_t)length;
}

void cli_lengths_make(const cli_lengths *lengths, int64_t num_seqs, int32_t *context_lens)
{
    uint64_t random = LENGTHS_SEED;
    for (int64_t i = 0; i < num_seqs; i++) {
        if (lengths->fixed)
            context_lens[i] = (int32_t)lengths->fixed;
        else if (strcmp(lengths->name, "chat") == 0)
            context_lens[i] = chat_length(&random);
        else
            context_lens[i] = i == 0 ? RAGGED_LONG : RAGGED_SHORT;
    }
}

/* ---- the list ---- */

void cli_workload_list(FILE *out)
{
    char name[CLI_NAME_BYTES];
    fprintf(out, "Models (--model NAME, or all):\n");
    for (int i = 0; i < NUM_MODELS; i++)
        fprintf(out, "  %-14s %s\n", models[i].name, cli_workload_name(&models[i].workload, name));
    fprintf(out,
            "\nContext lengths (--context):\n"
            "  NUMBER         all sequences of this many tokens; 8 sequences\n"
            "  ragged         one of %d tokens, the others of %d; 32 sequences\n"
            "  chat           log-normal, median %.0f, at most %d tokens; 32 sequences\n",
            RAGGED_LONG, RAGGED_SHORT, CHAT_MEDIAN, CHAT_LONGEST);
    fprintf(out, "\nWorkload names: KIND_paged_decode_hHEADS_kvKVHEADS_dHEADDIM and, if wanted,\n"
                 "_psPAGESIZE (16), _wWINDOW, _capSOFTCAP; KIND is gqa, mqa (one KV head) or mha\n"
                 "(as many KV heads as heads). For example:\n"
                 "  gqa_paged_decode_h32_kv8_d128_ps16\n"
                 "  gqa_paged_decode_h16_kv8_d256_ps16_w4096_cap50\n");
}

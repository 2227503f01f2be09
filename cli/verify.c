/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference is plain and slow, so it computes a sample: for each sequence the heads of one KV
 * head, taken in turn, as long as the budget lasts; first the longest sequence.
 */
#include "verify.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "say.h"

/* Multiply-adds of the reference: a few tenths of a second. */
#define BUDGET (INT64_C(1) << 27)

/* Of the largest value in the cache; well above what docs/numerics.md promises, well below what any
 * wrong row, page or weight gives. */
#define TOLERANCE 1e-5
#define LARGEST_VALUE 1.7321
/* What fast numerics may be off beside that, where the query is bf16 as the cache is: the bound of
 * docs/numerics.md. */
#define FAST_TOLERANCE 0x1p-8

static double widen(pageattn_type type, const char *element)
{
    uint16_t half;
    uint32_t bits;
    float value;
    if (type == PAGEATTN_F32) {
        memcpy(&value, element, 4);
        return (double)value;
    }
    memcpy(&half, element, 2);
    if (type == PAGEATTN_F16) {
        const int exponent = half >> 10 & 31, fraction = half & 1023;
        const double size = exponent == 31  ? (double)(fraction ? NAN : INFINITY)
                            : exponent == 0 ? ldexp(fraction, -24)
                                            : ldexp(1024 + fraction, exponent - 25);
        return half & 0x8000 ? -size : size;
    }
    bits = (uint32_t)half << 16;
    memcpy(&value, &bits, 4);
    return (double)value;
}

/* How far an output may be from the exact value: the arithmetic's error and the type's rounding. */
static double allowed(const pageattn_args *args, double exact)
{
    const pageattn_type type = args->out.type;
    const double rounding = type == PAGEATTN_BF16 ? 0x1p-8 : type == PAGEATTN_F16 ? 0x1p-11 : 0;
    const double fast = args->numerics == PAGEATTN_NUMERICS_FAST ? FAST_TOLERANCE : 0;
    return (TOLERANCE + fast) * LARGEST_VALUE + rounding * fabs(exact);
}

/* A tensor of the entries [begin, begin + count) of an axis. */
static pageattn_tensor slice(const pageattn_tensor *whole, int axis, int64_t begin, int64_t count)
{
    pageattn_tensor part = *whole;
    part.data = (char *)whole->data + begin * whole->stride[axis] * cli_type_bytes(whole->type);
    part.shape[axis] = count;
    return part;
}

/* The call for one sequence and one KV head only. */
static pageattn_args args_of(const pageattn_args *args, int64_t seq, int64_t kv_head, int64_t group)
{
    pageattn_args part = *args;
    part.query = slice(&args->query, 0, seq, 1);
    part.query = slice(&part.query, 1, kv_head * group, group);
    part.out = slice(&args->out, 0, seq, 1);
    part.out = slice(&part.out, 1, kv_head * group, group);
    part.key_cache = slice(&args->key_cache, 0, kv_head, 1);
    part.value_cache = slice(&args->value_cache, 0, kv_head, 1);
    part.context_lens = slice(&args->context_lens, 0, seq, 1);
    part.block_tables = slice(&args->block_tables, 0, seq, 1);
    return part;
}

static bool compare_rows(const pageattn_args *part, int64_t seq, int64_t kv_head,
                         const double *exact)
{
    const int64_t group = part->out.shape[1], dim = part->out.shape[2];
    const char *out = part->out.data;
    for (int64_t i = 0; i < group * dim; i++) {
        const double got = widen(part->out.type, out + i * cli_type_bytes(part->out.type));
        if (fabs(got - exact[i]) <= allowed(part, exact[i]))
            continue;
        cli_say("wrong result: out[%" PRId64 "][%" PRId64 "][%" PRId64
                "] is %.9g, the reference says %.9g",
                seq, kv_head * group + i / dim, i % dim, got, exact[i]);
        return false;
    }
    return true;
}

static bool verify_seq(const cli_data *data, int64_t seq, int64_t kv_head, double *exact)
{
    pageattn_error error;
    const int64_t group = data->args.query.shape[1] / data->args.key_cache.shape[0];
    const pageattn_args part = args_of(&data->args, seq, kv_head, group);
    if (pageattn_reference(&part, exact, NULL, &error) != PAGEATTN_OK) {
        cli_say("the reference refuses the call: %s", error.message);
        return false;
    }
    return compare_rows(&part, seq, kv_head, exact);
}

/* What the reference does for one sequence and KV head: it looks at every position of the context.
 */
static int64_t cost(const cli_data *data, int64_t seq)
{
    const pageattn_tensor *query = &data->args.query;
    return INT64_C(2) * cli_data_lens(data)[seq] * query->shape[2] * query->shape[1] /
           data->args.key_cache.shape[0];
}

static int64_t longest(const cli_data *data)
{
    int64_t best = 0;
    for (int64_t seq = 1; seq < data->args.query.shape[0]; seq++) {
        if (cli_data_lens(data)[seq] > cli_data_lens(data)[best])
            best = seq;
    }
    return best;
}

static bool verify_sample(const cli_data *data)
{
    const int64_t num_seqs = data->args.query.shape[0];
    const int64_t num_kv_heads = data->args.key_cache.shape[0];
    double *exact =
        malloc((size_t)(data->args.query.shape[1] * data->args.query.shape[2]) * sizeof(*exact));
    if (exact == NULL) {
        cli_say("out of memory for the reference's result");
        return false;
    }
    const int64_t first = longest(data);
    int64_t left = BUDGET - cost(data, first);
    bool right = verify_seq(data, first, num_kv_heads - 1, exact);
    /* From the last to the first: the last pages of the cache are the ones that bugs forget. */
    for (int64_t seq = num_seqs - 1; seq >= 0 && right && left > 0; seq--) {
        left -= cost(data, seq);
        right = verify_seq(data, seq, seq % num_kv_heads, exact);
    }
    free(exact);
    return right;
}

bool cli_verify(const cli_data *data, pageattn_context *context)
{
    pageattn_error error;
    if (pageattn_attend(context, &data->args, &error) != PAGEATTN_OK) {
        cli_say("%s", error.message);
        return false;
    }
    return verify_sample(data);
}

static size_t out_bytes(const cli_data *data)
{
    const pageattn_tensor *out = &data->args.out;
    return (size_t)(out->shape[0] * out->shape[1] * out->shape[2] * cli_type_bytes(out->type));
}

void *cli_verify_keep(const cli_data *data)
{
    void *kept = malloc(out_bytes(data));
    if (kept == NULL)
        cli_say("out of memory for a copy of the output");
    else
        memcpy(kept, data->args.out.data, out_bytes(data));
    return kept;
}

bool cli_verify_same(const cli_data *data, const void *kept)
{
    if (memcmp(kept, data->args.out.data, out_bytes(data)) == 0)
        return true;
    cli_say("wrong result: a later call gave other bits than the first, which was right");
    return false;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The definition of the public header, word for word in binary64: the oracle of every test.
 * It shares the checks with the fast path and nothing else, so that no mistake is made twice.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "error.h"

/* Working memory for one row of the result. */
typedef struct row_memory {
    double *query;  /* [head_dim] */
    double *key;    /* [head_dim] */
    double *value;  /* [value_head_dim] */
    double *logits; /* [longest_context] */
    int64_t longest_context;
    int changed; /* a context length or block table entry became wrong since the check */
} row_memory;

static double widen_f32(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return (double)value;
}

static double widen_f16(uint16_t bits)
{
    const double sign = bits & 0x8000 ? -1 : 1;
    const int exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
    if (exponent == 0x1f)
        return fraction != 0 ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * fraction * 0x1p-24;
    return sign * ldexp(1024 + fraction, exponent - 25);
}

static void widen_row(const void *row, pageattn_type type, int64_t count, double *wide)
{
    const uint32_t *words = row;
    const uint16_t *halves = row;
    for (int64_t i = 0; i < count; i++)
        wide[i] = type == PAGEATTN_F32    ? widen_f32(words[i])
                  : type == PAGEATTN_BF16 ? widen_f32((uint32_t)halves[i] << 16)
                                          : widen_f16(halves[i]);
}

static const char *row_of(const pageattn_problem *problem, const pageattn_side *side, int64_t seq,
                          int64_t kv_head, int64_t position, int *changed)
{
    const int64_t page =
        pageattn_problem_page(problem, seq, position / problem->page_size, changed);
    const int64_t slot = position % problem->page_size;
    return side->data + kv_head * side->head_bytes + page * side->page_bytes +
           slot * side->slot_bytes;
}

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Scale, soft cap and mask of one position of a context of `len` tokens. */
static double logit_of(const pageattn_problem *problem, double product, int64_t position,
                       int64_t len)
{
    double logit = (double)problem->attn_scale * product;
    if (problem->soft_cap > 0)
        logit = (double)problem->soft_cap * tanh(logit / (double)problem->soft_cap);
    if (problem->window > 0 && position < len - problem->window)
        logit += (double)problem->soft_mask;
    return logit;
}

/* NaN if any is NaN, which fmax would swallow. */
static double largest(const double *values, int64_t count)
{
    double max = -(double)INFINITY;
    for (int64_t i = 0; i < count; i++) {
        if (isnan(values[i]))
            return (double)NAN;
        max = values[i] > max ? values[i] : max;
    }
    return max;
}

/* Turns logits into exp(logit - lse), and returns lse. */
static double softmax(double *logits, int64_t count)
{
    const double max = largest(logits, count);
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        logits[i] = exp(logits[i] - max);
        sum += logits[i];
    }
    for (int64_t i = 0; i < count; i++)
        logits[i] /= sum;
    /* An infinite maximum leaves weights of inf - inf, which are NaN, and so is their sum; but the
     * log-sum-exp of nothing but -inf is known. */
    return max == -(double)INFINITY ? max : max + log(sum);
}

/* One row of the result: a query head of a sequence that attends to [begin, len). */
static double attend_row(const pageattn_problem *problem, int64_t seq, int64_t head, int64_t begin,
                         int64_t len, row_memory *memory, double *out)
{
    const int64_t kv_head = head / problem->group_size;
    const char *query =
        problem->query.data + seq * problem->query.seq_bytes + head * problem->query.head_bytes;
    widen_row(query, problem->query.type, problem->head_dim, memory->query);
    for (int64_t t = begin; t < len; t++) {
        widen_row(row_of(problem, &problem->keys, seq, kv_head, t, &memory->changed),
                  problem->kv_type, problem->head_dim, memory->key);
        memory->logits[t - begin] =
            logit_of(problem, dot(memory->query, memory->key, problem->head_dim), t, len);
    }
    const double lse = softmax(memory->logits, len - begin);
    for (int64_t t = begin; t < len; t++) {
        widen_row(row_of(problem, &problem->values, seq, kv_head, t, &memory->changed),
                  problem->kv_type, problem->value_head_dim, memory->value);
        for (int64_t d = 0; d < problem->value_head_dim; d++)
            out[d] += memory->logits[t - begin] * memory->value[d];
    }
    return lse;
}

static double quiet(double value)
{
    return isnan(value) ? (double)NAN : value;
}

/* A context that has grown since the memory was made is not read to its new end. */
static int64_t context_len(const pageattn_problem *problem, int64_t seq, row_memory *memory)
{
    const int64_t len = pageattn_problem_context_len(problem, seq, &memory->changed);
    if (len <= memory->longest_context)
        return len;
    memory->changed = 1;
    return 0;
}

static void attend_all(const pageattn_problem *problem, row_memory *memory, double *out,
                       double *lse)
{
    for (int64_t row = 0; row < problem->num_seqs * problem->num_heads; row++) {
        const int64_t seq = row / problem->num_heads, head = row % problem->num_heads;
        const int64_t len = context_len(problem, seq, memory);
        const int64_t begin = pageattn_problem_first_position(problem, len);
        double *out_row = out + row * problem->value_head_dim;
        for (int64_t d = 0; d < problem->value_head_dim; d++)
            out_row[d] = 0;
        double row_lse = -(double)INFINITY;
        if (len > 0)
            row_lse = attend_row(problem, seq, head, begin, len, memory, out_row);
        for (int64_t d = 0; d < problem->value_head_dim; d++)
            out_row[d] = quiet(out_row[d]);
        if (lse != NULL)
            lse[row] = quiet(row_lse);
    }
}

static int64_t longest_context(const pageattn_problem *problem, int *changed)
{
    int64_t longest = 0;
    for (int64_t seq = 0; seq < problem->num_seqs; seq++) {
        const int64_t len = pageattn_problem_context_len(problem, seq, changed);
        longest = len > longest ? len : longest;
    }
    return longest;
}

static pageattn_status compute(const pageattn_problem *problem, double *out, double *lse,
                               pageattn_error *error)
{
    const size_t head_dim = (size_t)problem->head_dim;
    const size_t value_head_dim = (size_t)problem->value_head_dim;
    int changed = 0;
    const int64_t longest = longest_context(problem, &changed);
    const size_t count = 2 * head_dim + value_head_dim + (size_t)longest;
    double *numbers = calloc(count, sizeof(double));
    if (numbers == NULL)
        return pageattn_fail(error, PAGEATTN_ERROR_MEMORY,
                             "out of memory for %zu numbers of binary64", count);
    row_memory memory = {
        .query = numbers,
        .key = numbers + head_dim,
        .value = numbers + 2 * head_dim,
        .logits = numbers + 2 * head_dim + value_head_dim,
        .longest_context = longest,
        .changed = changed,
    };
    attend_all(problem, &memory, out, lse);
    free(numbers);
    return memory.changed ? pageattn_fail_changed(error) : pageattn_succeed(error);
}

pageattn_status pageattn_reference(const pageattn_args *args, double *out, double *lse,
                                   pageattn_error *error)
{
    pageattn_problem problem;
    pageattn_status status = pageattn_check_args(args, PAGEATTN_CHECK_ALL, &problem, error);
    if (status != PAGEATTN_OK)
        return status;
    if (problem.num_seqs == 0)
        return pageattn_succeed(error);
    if (out == NULL)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT, "out is NULL");
    if ((uintptr_t)out % sizeof(double) != 0 || (uintptr_t)lse % sizeof(double) != 0)
        return pageattn_fail(error, PAGEATTN_ERROR_ALIGNMENT,
                             "%s is not a multiple of %zu, the size of a double in bytes",
                             (uintptr_t)out % sizeof(double) != 0 ? "out" : "lse", sizeof(double));
    return compute(&problem, out, lse, error);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One small right call with everything that it refers to, for tests of what happens when something
 * is wrong: with the call, with the context, or with the system.
 *
 * Only one thread of a program that includes this touches the fixture.
 */
#ifndef SMALL_CALL_H
#define SMALL_CALL_H

#include <pageattn/pageattn.h>

#include "check.h"

enum {
    NUM_SEQS = 4,
    NUM_HEADS = 4,
    NUM_KV_HEADS = 2,
    HEAD_DIM = 8,
    VALUE_HEAD_DIM = 6,
    PAGE_SIZE = 4,
    NUM_PAGES = 16,
    MAX_BLOCKS = 5,
    NUM_OUT = NUM_SEQS * NUM_HEADS * VALUE_HEAD_DIM,
    NUM_LSE = NUM_SEQS * NUM_HEADS,
    GUARD = 16,
    SCRATCH_BYTES = 1 << 20,
};

/* A call with all that it refers to, so that one memcmp shows whether anything was written. */
typedef struct fixture {
    pageattn_args args;
    pageattn_context_options options;
    pageattn_executor executor;
    pageattn_allocator allocator;
    _Alignas(64) float query[NUM_SEQS * NUM_HEADS * HEAD_DIM];
    float keys[NUM_KV_HEADS * NUM_PAGES * PAGE_SIZE * HEAD_DIM];
    float values[NUM_KV_HEADS * NUM_PAGES * PAGE_SIZE * VALUE_HEAD_DIM];
    int32_t lens[NUM_SEQS];
    int32_t tables[NUM_SEQS][MAX_BLOCKS];
    float before_out[GUARD];
    float out[NUM_OUT];
    float after_out[GUARD];
    float lse[NUM_LSE];
    float after_lse[GUARD];
    _Alignas(64) char scratch[SCRATCH_BYTES];
} fixture;

static fixture call, call_before;

/* ---- An allocator that keeps books ---- */

/* An allocator that counts, and fails at the allocation number `fail_at` (0: never). */
typedef struct ledger {
    long num_allocations;
    long fail_at;
    int64_t bytes_held;
} ledger;

static inline void *ledger_allocate(void *opaque, size_t bytes, size_t alignment)
{
    ledger *book = opaque;
    if (++book->num_allocations == book->fail_at)
        return NULL;
    book->bytes_held += (int64_t)bytes;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static inline void ledger_deallocate(void *opaque, void *pointer, size_t bytes)
{
    ledger *book = opaque;
    book->bytes_held -= (int64_t)bytes;
    free(pointer);
}

static inline pageattn_allocator ledger_allocator(ledger *book)
{
    return (pageattn_allocator){
        .struct_size = sizeof(pageattn_allocator),
        .context = book,
        .allocate = ledger_allocate,
        .deallocate = ledger_deallocate,
    };
}

/* ---- The right call ---- */

static inline void run_in_order(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    for (int64_t i = 0; i < num_tasks; i++)
        task(arg, i);
}

static inline void fill_normal(uint64_t *random, float *numbers, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        numbers[i] = (float)check_random_normal(random);
}

static inline void fill_tables(uint64_t *random)
{
    static const int32_t lens[NUM_SEQS] = {20, 0, 7, 13};
    int32_t pages[NUM_PAGES];
    int used = 0;
    check_random_permutation(random, pages, NUM_PAGES);
    memcpy(call.lens, lens, sizeof(lens));
    memset(call.tables, -1, sizeof(call.tables));
    for (int seq = 0; seq < NUM_SEQS; seq++) {
        for (int block = 0; block * PAGE_SIZE < lens[seq]; block++)
            call.tables[seq][block] = pages[used++];
    }
}

static inline void set_args(void)
{
    pageattn_args *args = &call.args;
    pageattn_args_init(args);
    args->query = pageattn_tensor_3d(call.query, PAGEATTN_F32, NUM_SEQS, NUM_HEADS, HEAD_DIM);
    args->key_cache = pageattn_cache(call.keys, PAGEATTN_F32, PAGEATTN_HND_PAGES, NUM_KV_HEADS,
                                     NUM_PAGES, PAGE_SIZE, HEAD_DIM);
    args->value_cache = pageattn_cache(call.values, PAGEATTN_F32, PAGEATTN_HND_PAGES, NUM_KV_HEADS,
                                       NUM_PAGES, PAGE_SIZE, VALUE_HEAD_DIM);
    args->context_lens = pageattn_tensor_1d(call.lens, PAGEATTN_I32, NUM_SEQS);
    args->block_tables = pageattn_tensor_2d(call.tables, PAGEATTN_I32, NUM_SEQS, MAX_BLOCKS);
    args->out = pageattn_tensor_3d(call.out, PAGEATTN_F32, NUM_SEQS, NUM_HEADS, VALUE_HEAD_DIM);
    args->lse = pageattn_tensor_2d(call.lse, PAGEATTN_F32, NUM_SEQS, NUM_HEADS);
}

static inline void set_creation(void)
{
    static ledger book;
    pageattn_context_options_init(&call.options);
    call.executor = (pageattn_executor){
        .struct_size = sizeof(pageattn_executor),
        .num_workers = 2,
        .parallel_for = run_in_order,
    };
    call.allocator = ledger_allocator(&book);
}

static inline void reset(void)
{
    uint64_t random = check.seed;
    memset(&call, 0xa5, sizeof(call));
    fill_normal(&random, call.query, sizeof(call.query) / sizeof(float));
    fill_normal(&random, call.keys, sizeof(call.keys) / sizeof(float));
    fill_normal(&random, call.values, sizeof(call.values) / sizeof(float));
    fill_tables(&random);
    set_args();
    set_creation();
}

static inline void remember(void)
{
    memcpy(&call_before, &call, sizeof(call));
}

static inline int unchanged(void)
{
    return memcmp(&call_before, &call, sizeof(call)) == 0;
}

/* ---- Right calls give the reference's answer ---- */

static inline float *element(const pageattn_tensor *tensor, int64_t i, int64_t j, int64_t k)
{
    const int64_t last = tensor->rank > 2 ? k * tensor->stride[2] : 0;
    return (float *)tensor->data + i * tensor->stride[0] + j * tensor->stride[1] + last;
}

static inline int near(double got, double wanted)
{
    if (isnan(wanted) || isinf(wanted))
        return isnan(wanted) ? isnan(got) : got == wanted;
    return fabs(got - wanted) <= 1e-5;
}

static inline int agrees(const char *name, const double *out, const double *lse)
{
    const pageattn_args *args = &call.args;
    const int64_t *shape = args->out.shape;
    for (int64_t row = 0; row < shape[0] * shape[1]; row++) {
        const int64_t seq = row / shape[1], head = row % shape[1];
        for (int64_t d = 0; d < shape[2]; d++) {
            const double got = (double)*element(&args->out, seq, head, d);
            const double wanted = out[row * shape[2] + d];
            if (!near(got, wanted)) {
                check_failed(name, "out[%d][%d][%d] is %.9g; the reference says %.9g", (int)seq,
                             (int)head, (int)d, got, wanted);
                return 0;
            }
        }
        if (args->lse.type != PAGEATTN_NO_TYPE &&
            !near((double)*element(&args->lse, seq, head, 0), lse[row])) {
            check_failed(name, "lse[%d][%d] is %.9g; the reference says %.9g", (int)seq, (int)head,
                         (double)*element(&args->lse, seq, head, 0), lse[row]);
            return 0;
        }
    }
    return 1;
}

static inline int guards_intact(void)
{
    return memcmp(call.before_out, call_before.before_out, sizeof(call.before_out)) == 0 &&
           memcmp(call.after_out, call_before.after_out, sizeof(call.after_out)) == 0 &&
           memcmp(call.after_lse, call_before.after_lse, sizeof(call.after_lse)) == 0;
}

static inline int inputs_intact(void)
{
    return memcmp(&call, &call_before, offsetof(fixture, before_out)) == 0;
}

/* Makes the call that stands in the fixture; 1 if it succeeds and is right. */
static inline int succeeds(const char *name, pageattn_context *on)
{
    double out[NUM_OUT], lse[NUM_LSE];
    pageattn_error error;
    remember();
    if (pageattn_attend(on, &call.args, &error) != PAGEATTN_OK) {
        check_failed(name, "refused: %s", error.message);
        return 0;
    }
    if (error.status != PAGEATTN_OK || error.message[0] != '\0') {
        check_failed(name, "success is recorded as %d, \"%s\"", (int)error.status, error.message);
        return 0;
    }
    if (!guards_intact() || !inputs_intact()) {
        check_failed(name, "wrote outside of out and lse");
        return 0;
    }
    if (pageattn_reference(&call.args, out, lse, &error) != PAGEATTN_OK) {
        check_failed(name, "the reference refused: %s", error.message);
        return 0;
    }
    return agrees(name, out, lse);
}

static inline int right_call_succeeds(const char *name, pageattn_context *on)
{
    reset();
    return succeeds(name, on);
}

/* ---- Fields of the fixture set to something else ---- */

/* Sets one field of the fixture. */
typedef struct poke {
    size_t offset;
    size_t bytes; /* 0: no more */
    union {
        int64_t integer; /* of which an int32_t takes the first bytes */
        float number;
        void *pointer;
    } value;
} poke;

#define AT(field) offsetof(fixture, field), sizeof(((fixture *)0)->field)
/* The first bytes are the low half on some processors and the high half on others. */
#define TWICE(x) ((int64_t)((uint64_t)(uint32_t)(x) << 32 | (uint32_t)(x)))
#define SET(field, x)                                                                              \
    {                                                                                              \
        AT(field),                                                                                 \
        {                                                                                          \
            .integer = sizeof(((fixture *)0)->field) == 4 ? TWICE(x) : (int64_t)(x)                \
        }                                                                                          \
    }
#define SET_FLOAT(field, x)                                                                        \
    {                                                                                              \
        AT(field),                                                                                 \
        {                                                                                          \
            .number = (x)                                                                          \
        }                                                                                          \
    }
#define SET_POINTER(field, x)                                                                      \
    {                                                                                              \
        AT(field),                                                                                 \
        {                                                                                          \
            .pointer = (void *)(x)                                                                 \
        }                                                                                          \
    }
#define MAX_POKES 8

static inline void apply(const poke *pokes)
{
    for (int i = 0; i < MAX_POKES && pokes[i].bytes != 0; i++)
        memcpy((char *)&call + pokes[i].offset, &pokes[i].value, pokes[i].bytes);
}

/* ---- What a refusal says ---- */

/* `*` in the pattern stands for any text. */
static inline int matches(const char *pattern, const char *text)
{
    for (; *pattern != '*'; pattern++, text++) {
        if (*pattern != *text)
            return 0;
        if (*pattern == '\0')
            return 1;
    }
    do {
        if (matches(pattern + 1, text))
            return 1;
    } while (*text++ != '\0');
    return 0;
}

static inline void expect(const char *name, pageattn_status got, pageattn_status wanted,
                          const pageattn_error *error, const char *message)
{
    if (got != wanted || error->status != wanted)
        check_failed(name, "\"%s\" (%s); \"%s\" is right", pageattn_status_name(got),
                     error->message, pageattn_status_name(wanted));
    else if (!matches(message, error->message))
        check_failed(name, "says\n    %s\nwhere this was expected:\n    %s", error->message,
                     message);
    else
        check_passed(name);
}

/* ---- Contexts ---- */

static inline pageattn_context *context_of(pageattn_executor executor)
{
    pageattn_context_options options;
    pageattn_context *created = NULL;
    pageattn_error error;
    pageattn_context_options_init(&options);
    options.executor = &executor;
    options.min_bytes_per_worker = 1; /* so that this small call is worth two workers */
    if (pageattn_context_create(&options, &created, &error) != PAGEATTN_OK) {
        check_failed("a context on an executor", "%s", error.message);
        exit(check_finish());
    }
    return created;
}

#endif

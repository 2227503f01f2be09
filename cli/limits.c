/* SPDX-License-Identifier: Apache-2.0 */
#include "limits.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "context.h"
#include "crew.h"
#include "kernel/kernels.h"
#include "say.h"

/* Parts are small, so that the workers end together, but not so small that it takes time to claim
 * them. */
#define MAX_PARTS_PER_WORKER 64
#define MIN_PART_BYTES (64 << 10)
#define CHUNK_BYTES 4096
#define MAX_AHEAD PAGEATTN_MAX_PREFETCH_ROWS

/* Weak, because a build holds only the instruction sets of its processor family. */
#define ISA(name, NAME, requirement)                                                               \
    extern const cli_limit_loops cli_limit_loops_##name __attribute__((weak));
#include "isa/isa.def"
#undef ISA

const cli_limit_loops *cli_limit_loops_built(pageattn_isa isa)
{
    switch (isa) {
#define ISA(name, NAME, requirement)                                                               \
    case PAGEATTN_ISA_##NAME:                                                                      \
        return &cli_limit_loops_##name;
#include "isa/isa.def"
#undef ISA
    case PAGEATTN_ISA_AUTO:
        break;
    }
    return NULL;
}

const char *cli_prefetch_name(cli_prefetch prefetch)
{
    static const char *const names[CLI_NUM_PREFETCHES] = {
        [CLI_PREFETCH_L2] = "L2",
        [CLI_PREFETCH_L2_HALF] = "L2 half",
        [CLI_PREFETCH_L1] = "L1",
        [CLI_PREFETCH_L1_HALF] = "L1 half",
        [CLI_PREFETCH_L2_THEN_L1] = "L2 then L1",
        [CLI_PREFETCH_L1_THRICE] = "L1 thrice",
        [CLI_PREFETCH_L2_THEN_L1_THRICE] = "L2 then L1 thrice",
        [CLI_PREFETCH_L1_FOUR_TIMES] = "L1 four times",
        [CLI_PREFETCH_L1_FIVE_TIMES] = "L1 five times",
        [CLI_PREFETCH_L1_SIX_TIMES] = "L1 six times",
        [CLI_PREFETCH_L1_SEVEN_TIMES] = "L1 seven times",
    };
    return names[prefetch];
}

#define FAST(name, NAME, ISA, requirement)                                                         \
    extern const pageattn_fast_kernels pageattn_fast_kernels_##name __attribute__((weak));         \
    extern const pageattn_fast_kernels pageattn_fast_kernels_##name##_l1 __attribute__((weak));    \
    extern const cli_multiply_adds cli_fast_multiply_adds_##name __attribute__((weak));
#include "isa/fast.def"
#undef FAST

/* By the instruction with which this context computes the case. */
static const cli_multiply_adds *multiply_adds_of(const cli_data *data,
                                                 const pageattn_context *context)
{
    if (data->args.numerics == PAGEATTN_NUMERICS_FAST &&
        pageattn_context_has_fast(context, data->args.key_cache.type)) {
#define FAST(name, NAME, ISA, requirement)                                                         \
    if (context->fast_kernels == &pageattn_fast_kernels_##name ||                                  \
        context->fast_kernels == &pageattn_fast_kernels_##name##_l1)                               \
        return &cli_fast_multiply_adds_##name;
#include "isa/fast.def"
#undef FAST
    }
    return &cli_limit_loops_built(pageattn_context_isa(context))->multiply_adds;
}

/* ---- the leaves and their parts ---- */

static int64_t count_leaves(const cli_data *data)
{
    int64_t count = 0;
    for (int64_t seq = 0; seq < data->args.query.shape[0]; seq++)
        count += (cli_data_lens(data)[seq] - 1) / PAGEATTN_LEAF_TOKENS -
                 cli_data_first(data, seq) / PAGEATTN_LEAF_TOKENS + 1;
    return count * data->args.key_cache.shape[0];
}

static cli_leaf *put_leaves(const cli_data *data, int64_t seq, int64_t kv_head, cli_leaf *leaf)
{
    const int64_t len = cli_data_lens(data)[seq];
    for (int64_t begin = cli_data_first(data, seq); begin < len; leaf++) {
        const int64_t next = (begin / PAGEATTN_LEAF_TOKENS + 1) * PAGEATTN_LEAF_TOKENS;
        *leaf = (cli_leaf){.seq = (int32_t)seq,
                           .kv_head = (int32_t)kv_head,
                           .begin = (int32_t)begin,
                           .end = (int32_t)(next < len ? next : len)};
        begin = leaf->end;
    }
    return leaf;
}

static int64_t num_parts_for(int64_t bytes, int64_t num_workers)
{
    const int64_t most = num_workers * MAX_PARTS_PER_WORKER;
    const int64_t parts = bytes / MIN_PART_BYTES;
    if (num_workers == 1)
        return 1;
    return parts < num_workers ? num_workers : parts < most ? parts : most;
}

/* A part ends as soon as it has its share of the tokens. */
static void cut_parts(cli_limits *limits)
{
    const int64_t num_tokens = limits->data->num_tokens * limits->data->args.key_cache.shape[0];
    int64_t tokens = 0, part = 0;
    limits->part_leaves[0] = 0;
    for (int64_t i = 0; i < limits->num_leaves; i++) {
        tokens += limits->leaves[i].end - limits->leaves[i].begin;
        while (part < limits->num_parts && tokens * limits->num_parts >= (part + 1) * num_tokens)
            limits->part_leaves[++part] = i + 1;
    }
}

bool cli_limits_create(const cli_data *data, pageattn_context *context, cli_limits *limits)
{
    *limits = (cli_limits){.data = data, .context = context, .num_rounds = 1};
    limits->loops = cli_limit_loops_built(pageattn_context_isa(context));
    limits->multiply_adds = multiply_adds_of(data, context);
    limits->num_workers = cli_crew_workers(context, data->kv_bytes);
    limits->num_parts = num_parts_for(data->kv_bytes, limits->num_workers);
    limits->num_leaves = count_leaves(data);
    limits->leaves = calloc((size_t)limits->num_leaves + 1, sizeof(*limits->leaves));
    limits->part_leaves = malloc((size_t)(limits->num_parts + 1) * sizeof(*limits->part_leaves));
    if (limits->leaves == NULL || limits->part_leaves == NULL) {
        cli_say("out of memory for the list of leaves");
        cli_limits_destroy(limits);
        return false;
    }
    cli_leaf *leaf = limits->leaves;
    for (int64_t seq = 0; seq < data->args.query.shape[0]; seq++) {
        for (int64_t kv_head = 0; kv_head < data->args.key_cache.shape[0]; kv_head++)
            leaf = put_leaves(data, seq, kv_head, leaf);
    }
    cut_parts(limits);
    return true;
}

void cli_limits_destroy(cli_limits *limits)
{
    free(limits->leaves);
    free(limits->part_leaves);
    *limits = (cli_limits){0};
}

/* ---- one pass, on all workers ---- */

typedef struct pass {
    const cli_limits *limits;
    _Atomic int64_t next_part;
    _Atomic uint64_t digest;
} pass;

static bool run_pass(const cli_limits *limits, pageattn_task worker, uint64_t *digest)
{
    pass state = {.limits = limits};
    const bool done = cli_crew_run(limits->context, limits->num_workers, worker, &state);
    *digest = atomic_load(&state.digest);
    return done;
}

/* -1: no more. */
static int64_t claim_part(pass *state)
{
    const int64_t part = atomic_fetch_add_explicit(&state->next_part, 1, memory_order_relaxed);
    return part < state->limits->num_parts ? part : -1;
}

/* ---- sequential read ---- */

/* Part i of a side's first `bytes` bytes, cut at multiples of a chunk. */
static cli_chunk part_of_side(const pageattn_tensor *side, int64_t bytes, int64_t part,
                              int64_t num_parts)
{
    const int64_t num_chunks = (bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
    const int64_t begin = num_chunks * part / num_parts * CHUNK_BYTES;
    const int64_t end = num_chunks * (part + 1) / num_parts * CHUNK_BYTES;
    return (cli_chunk){.data = (const char *)side->data + begin,
                       .bytes = (end < bytes ? end : bytes) - begin};
}

static void read_sequential_worker(void *arg, int64_t worker)
{
    pass *state = arg;
    const cli_limits *limits = state->limits;
    const int64_t side_bytes = limits->data->kv_bytes / 2;
    uint64_t digest = 0;
    (void)worker;
    for (int64_t part; (part = claim_part(state)) >= 0;) {
        const pageattn_args *args = &limits->data->args;
        digest ^= limits->loops->read_run(
            part_of_side(&args->key_cache, side_bytes, part, limits->num_parts));
        digest ^= limits->loops->read_run(
            part_of_side(&args->value_cache, side_bytes, part, limits->num_parts));
    }
    atomic_fetch_xor(&state->digest, digest);
}

bool cli_limits_read_sequential(const cli_limits *limits, uint64_t *digest)
{
    return run_pass(limits, read_sequential_worker, digest);
}

/* ---- gather read ---- */

/* What one worker reads, as a stream of chunks of at most CHUNK_BYTES that never breaks: keys of a
 * leaf, its values, the keys of the next, across parts. */
typedef struct page_stream {
    pass *state;
    int64_t leaf; /* the next one, unless it is end_leaf */
    int64_t end_leaf;
    bool values; /* of the leaf are next; else its keys */
    int64_t num_chunks;
    cli_chunk chunks[PAGEATTN_LEAF_TOKENS + 2 * (MAX_AHEAD + 1)];
} page_stream;

static void put_run(page_stream *stream, const char *data, int64_t bytes)
{
    while (bytes > 0) {
        const int64_t chunk = bytes < CHUNK_BYTES ? bytes : CHUNK_BYTES;
        stream->chunks[stream->num_chunks++] = (cli_chunk){.data = data, .bytes = chunk};
        data += chunk;
        bytes -= chunk;
    }
}

/* The rows of positions [begin, end) of one page. */
static void put_slots(page_stream *stream, const pageattn_tensor *side, const char *page,
                      int64_t begin, int64_t end)
{
    const int64_t element = cli_type_bytes(side->type);
    const int64_t row_bytes = side->shape[3] * element;
    const int64_t slot_bytes = side->stride[2] * element;
    if (slot_bytes == row_bytes) {
        put_run(stream, page + begin * row_bytes, (end - begin) * row_bytes);
        return;
    }
    for (int64_t slot = begin; slot < end; slot++)
        put_run(stream, page + slot * slot_bytes, row_bytes);
}

static void put_leaf(page_stream *stream, const cli_leaf *leaf, const pageattn_tensor *side)
{
    const pageattn_tensor *tables = &stream->state->limits->data->args.block_tables;
    const int32_t *table = (const int32_t *)tables->data + leaf->seq * tables->stride[0];
    const int64_t element = cli_type_bytes(side->type);
    const int64_t page_size = side->shape[2], page_bytes = side->stride[1] * element;
    const char *head = (const char *)side->data + leaf->kv_head * side->stride[0] * element;
    int64_t page = leaf->begin / page_size, slot = leaf->begin % page_size;
    for (int64_t left = leaf->end - leaf->begin; left > 0; page++, slot = 0) {
        const int64_t in_page = page_size - slot;
        const int64_t num_slots = in_page < left ? in_page : left;
        put_slots(stream, side, head + table[page] * page_bytes, slot, slot + num_slots);
        left -= num_slots;
    }
}

/* Adds one side of a leaf; false at the end of the work. */
static bool put_more(page_stream *stream)
{
    const cli_limits *limits = stream->state->limits;
    while (stream->leaf == stream->end_leaf) {
        const int64_t part = claim_part(stream->state);
        if (part < 0)
            return false;
        stream->leaf = limits->part_leaves[part];
        stream->end_leaf = limits->part_leaves[part + 1];
    }
    const pageattn_args *args = &limits->data->args;
    put_leaf(stream, &limits->leaves[stream->leaf],
             stream->values ? &args->value_cache : &args->key_cache);
    stream->leaf += stream->values;
    stream->values = !stream->values;
    return true;
}

/* A distance of `bytes`, given what this layout's chunks are; in whole chunks where the first half
 * of one is prefetched. */
static cli_distance distance(const cli_limits *limits, int64_t bytes)
{
    const pageattn_tensor *side = &limits->data->args.key_cache;
    const int64_t element = cli_type_bytes(side->type);
    const int64_t row_bytes = side->shape[3] * element;
    const int64_t page_bytes =
        side->stride[2] == side->shape[3] ? side->shape[2] * row_bytes : row_bytes;
    const int64_t chunk = page_bytes < CHUNK_BYTES ? page_bytes : CHUNK_BYTES;
    if (bytes / chunk >= MAX_AHEAD)
        return (cli_distance){.chunks = MAX_AHEAD};
    if (limits->prefetch == CLI_PREFETCH_L2_HALF || limits->prefetch == CLI_PREFETCH_L1_HALF)
        return (cli_distance){.chunks = bytes / chunk};
    return (cli_distance){.chunks = bytes / chunk, .bytes = bytes % chunk};
}

/* Reads the first num_chunks and moves the others to the front. */
static uint64_t read_stream(page_stream *stream, int64_t num_chunks, const cli_distance ahead[])
{
    const cli_limits *limits = stream->state->limits;
    const uint64_t digest =
        limits->loops->read_chunks[limits->prefetch](stream->chunks, num_chunks, ahead);
    stream->num_chunks -= num_chunks;
    memmove(stream->chunks, stream->chunks + num_chunks,
            (size_t)stream->num_chunks * sizeof(*stream->chunks));
    return digest;
}

static void read_gather_worker(void *arg, int64_t worker)
{
    page_stream stream = {.state = arg};
    const cli_limits *limits = stream.state->limits;
    cli_distance ahead[CLI_MAX_PREFETCH_TIMES];
    uint64_t digest = 0;
    (void)worker;
    for (int i = 0; i < CLI_MAX_PREFETCH_TIMES; i++)
        ahead[i] = distance(limits, limits->prefetch_bytes[i]);
    const int64_t to_come = ahead[0].chunks + 1;
    while (put_more(&stream)) {
        if (stream.num_chunks > to_come)
            digest ^= read_stream(&stream, stream.num_chunks - to_come, ahead);
    }
    if (stream.num_chunks > 0) {
        /* Nothing comes after the last chunks: prefetch what was just read. */
        const int64_t left = stream.num_chunks;
        for (int64_t i = 0; i < to_come; i++)
            stream.chunks[left + i] = stream.chunks[0];
        digest ^= read_stream(&stream, left, ahead);
    }
    atomic_fetch_xor(&stream.state->digest, digest);
}

bool cli_limits_read_gather(const cli_limits *limits, uint64_t *digest)
{
    return run_pass(limits, read_gather_worker, digest);
}

/* ---- multiply-adds ---- */

static void multiply_add_worker(void *arg, int64_t worker)
{
    pass *state = arg;
    uint64_t digest = 0;
    (void)worker;
    while (claim_part(state) >= 0)
        digest += state->limits->multiply_adds->run(state->limits->num_rounds) > 0;
    atomic_fetch_xor(&state->digest, digest);
}

bool cli_limits_multiply_add(const cli_limits *limits)
{
    uint64_t unused;
    return run_pass(limits, multiply_add_worker, &unused);
}

int64_t cli_limits_call_multiply_adds(const cli_data *data)
{
    const pageattn_tensor *query = &data->args.query;
    return 2 * data->num_tokens * query->shape[1] * (pageattn_padded(query->shape[2]) / 16);
}

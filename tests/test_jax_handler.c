/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handler for JAX, called as XLA calls it, over thread pools that XLA is allowed to have: with
 * and without threads, busy, slow, refusing. Needs no JAX; the sanitizers see all of it.
 */
#define _DEFAULT_SOURCE /* mmap's flags */

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include <xla/ffi/api/c_api.h>

#include "paged_case.h"

#include "../bindings/jax/executor.h"

XLA_FFI_Error *pageattn_jax_page_attention(XLA_FFI_CallFrame *frame);

#define HUNG_SECONDS 120
#define NUM_CALLERS 24 /* more than contexts are kept */
#define MAX_LATE 4096

/* ---- what stands for XLA ---- */

struct XLA_FFI_Error {
    XLA_FFI_Error_Code code;
    char message[1024];
};

/* What a pool does with a task. */
typedef enum pool_kind {
    IN_THREADS, /* a new thread for each */
    INLINE,     /* at once, on the thread that schedules */
    LATE,       /* after the call has returned: the pool was busy */
    REFUSING,   /* there is a pool, and it takes nothing */
    NO_POOL,    /* there is none */
} pool_kind;

struct XLA_FFI_ExecutionContext {
    pool_kind kind;
    int64_t num_threads;
    int64_t num_late;
    struct {
        XLA_FFI_Task *task;
        void *data;
    } late[MAX_LATE];
};

static _Atomic int64_t num_errors, num_threads_running;

static XLA_FFI_Error *create_error(XLA_FFI_Error_Create_Args *args)
{
    XLA_FFI_Error *error = check_allocate(sizeof(*error));
    error->code = args->errc;
    snprintf(error->message, sizeof(error->message), "%s", args->message);
    atomic_fetch_add(&num_errors, 1);
    return error;
}

static void destroy_error(XLA_FFI_Error_Destroy_Args *args)
{
    atomic_fetch_sub(&num_errors, 1);
    free(args->error);
}

static XLA_FFI_Error *new_error(const char *message)
{
    XLA_FFI_Error_Create_Args args = {.message = message, .errc = XLA_FFI_Error_Code_UNAVAILABLE};
    return create_error(&args);
}

typedef struct scheduled {
    XLA_FFI_Task *task;
    void *data;
} scheduled;

static void *run_scheduled(void *arg)
{
    scheduled copy = *(scheduled *)arg;
    free(arg);
    copy.task(copy.data);
    atomic_fetch_sub(&num_threads_running, 1);
    return NULL;
}

static void run_in_thread(XLA_FFI_Task *task, void *data)
{
    pthread_t thread;
    scheduled *arg = check_allocate(sizeof(*arg));
    *arg = (scheduled){task, data};
    atomic_fetch_add(&num_threads_running, 1);
    if (pthread_create(&thread, NULL, run_scheduled, arg) != 0) {
        printf("FAILED no thread\n");
        exit(1);
    }
    pthread_detach(thread);
}

static XLA_FFI_Error *schedule(XLA_FFI_ThreadPool_Schedule_Args *args)
{
    XLA_FFI_ExecutionContext *execution = args->ctx;
    if (execution->kind == REFUSING || execution->kind == NO_POOL)
        return new_error("no thread pool");
    if (execution->kind == INLINE)
        args->task(args->data);
    else if (execution->kind == IN_THREADS || execution->num_late == MAX_LATE)
        run_in_thread(args->task, args->data);
    else {
        execution->late[execution->num_late].task = args->task;
        execution->late[execution->num_late++].data = args->data;
    }
    return NULL;
}

static XLA_FFI_Error *count_threads(XLA_FFI_ThreadPool_NumThreads_Args *args)
{
    if (args->ctx->kind == NO_POOL)
        return new_error("no thread pool");
    *args->num_threads = args->ctx->num_threads;
    return NULL;
}

static const XLA_FFI_Api api = {
    .struct_size = XLA_FFI_Api_STRUCT_SIZE,
    .XLA_FFI_Error_Create = create_error,
    .XLA_FFI_Error_Destroy = destroy_error,
    .XLA_FFI_ThreadPool_Schedule = schedule,
    .XLA_FFI_ThreadPool_NumThreads = count_threads,
};

static XLA_FFI_ExecutionContext *new_execution(pool_kind kind, int64_t num_threads)
{
    XLA_FFI_ExecutionContext *execution = check_allocate(sizeof(*execution));
    execution->kind = kind;
    execution->num_threads = num_threads;
    execution->num_late = 0;
    return execution;
}

/* The busy threads become free at last. */
static void free_execution(XLA_FFI_ExecutionContext *execution)
{
    for (int64_t i = 0; i < execution->num_late; i++)
        execution->late[i].task(execution->late[i].data);
    free(execution);
}

static void wait_for_threads(void)
{
    while (atomic_load(&num_threads_running) > 0)
        usleep(100);
}

/* ---- a call frame over a paged case ---- */

#define NUM_OPTIONS 13

typedef struct frame {
    XLA_FFI_CallFrame call;
    XLA_FFI_Buffer buffers[7];
    int64_t dims[7][6];
    XLA_FFI_ArgType arg_types[5];
    XLA_FFI_RetType ret_types[2];
    void *args[5], *rets[2];
    XLA_FFI_AttrType attr_types[NUM_OPTIONS];
    XLA_FFI_ByteSpan spans[NUM_OPTIONS];
    XLA_FFI_ByteSpan *names[NUM_OPTIONS];
    XLA_FFI_Scalar scalars[NUM_OPTIONS];
    void *attrs[NUM_OPTIONS];
    int64_t values[NUM_OPTIONS];
} frame;

static XLA_FFI_DataType xla_type(pageattn_type type)
{
    static const XLA_FFI_DataType types[] = {XLA_FFI_DataType_INVALID, XLA_FFI_DataType_F32,
                                             XLA_FFI_DataType_BF16, XLA_FFI_DataType_F16,
                                             XLA_FFI_DataType_S32};
    return types[type];
}

static void set_buffer(frame *made, int index, const pageattn_tensor *tensor, void *data)
{
    XLA_FFI_Buffer *buffer = &made->buffers[index];
    *buffer = (XLA_FFI_Buffer){.struct_size = XLA_FFI_Buffer_STRUCT_SIZE,
                               .dtype = xla_type(tensor->type),
                               .data = data,
                               .rank = tensor->rank,
                               .dims = made->dims[index]};
    memcpy(buffer->dims, tensor->shape, sizeof(tensor->shape));
    if (index < 5)
        made->args[index] = buffer;
    else
        made->rets[index - 5] = buffer;
}

static void set_option(frame *made, int index, const char *name, XLA_FFI_DataType type,
                       const void *value)
{
    made->attr_types[index] = XLA_FFI_AttrType_SCALAR;
    made->spans[index] = (XLA_FFI_ByteSpan){.ptr = name, .len = strlen(name)};
    made->names[index] = &made->spans[index];
    memcpy(&made->values[index], value, type == XLA_FFI_DataType_S64 ? 8 : 4);
    made->scalars[index] = (XLA_FFI_Scalar){.dtype = type, .value = &made->values[index]};
    made->attrs[index] = &made->scalars[index];
}

/* In the order of their names, as XLA has them. */
static void set_options(frame *made, const pageattn_args *args, int32_t num_threads)
{
    const XLA_FFI_DataType f32 = XLA_FFI_DataType_F32, s32 = XLA_FFI_DataType_S32;
    const int32_t zero = 0, one = 1;
    set_option(made, 0, "attn_logits_soft_cap", f32, &args->attn_logits_soft_cap);
    set_option(made, 1, "attn_scale", f32, &args->attn_scale);
    set_option(made, 2, "inline_seq_dim", s32, &one);
    set_option(made, 3, "isa", s32, &zero);
    set_option(made, 4, "kv_layout", s32, &zero);
    set_option(made, 5, "mask_value", f32, &args->mask_value);
    set_option(made, 6, "max_context_len", XLA_FFI_DataType_S64, &args->max_context_len);
    set_option(made, 7, "megacore_mode", s32, &zero);
    set_option(made, 8, "num_splits", s32, &args->num_splits);
    set_option(made, 9, "num_threads", s32, &num_threads);
    set_option(made, 10, "numerics", s32, &zero);
    set_option(made, 11, "pages_per_compute_block", s32, &args->pages_per_compute_block);
    set_option(made, 12, "sliding_window", s32, &args->sliding_window);
}

/* `out` and `lse` are contiguous; lse NULL: not wanted. */
static void make_frame(frame *made, const pageattn_args *args, int32_t num_threads,
                       XLA_FFI_ExecutionContext *execution, void *out, void *lse)
{
    const pageattn_tensor *inputs[] = {&args->query, &args->key_cache, &args->value_cache,
                                       &args->context_lens, &args->block_tables};
    memset(made, 0, sizeof(*made));
    for (int i = 0; i < 5; i++) {
        made->arg_types[i] = XLA_FFI_ArgType_BUFFER;
        set_buffer(made, i, inputs[i], inputs[i]->data);
    }
    set_buffer(made, 5, &args->out, out);
    set_buffer(made, 6, &args->lse, lse);
    set_options(made, args, num_threads);
    made->call = (XLA_FFI_CallFrame){
        .struct_size = XLA_FFI_CallFrame_STRUCT_SIZE,
        .api = &api,
        .ctx = execution,
        .stage = XLA_FFI_ExecutionStage_EXECUTE,
        .args = {.size = 5, .types = made->arg_types, .args = made->args},
        .rets = {.size = lse ? 2 : 1, .types = made->ret_types, .rets = made->rets},
        .attrs = {.size = NUM_OPTIONS,
                  .types = made->attr_types,
                  .names = made->names,
                  .attrs = made->attrs},
    };
}

/* ---- a call and what it must give ---- */

typedef struct expectation {
    logical_case logical;
    paged_case paged;
    size_t out_bytes, lse_bytes;
    char *out;
    float *lse;
} expectation;

/* Long enough for several workers, and split between them. */
static void expect(expectation *made, pageattn_type type, uint64_t seed)
{
    const int64_t lens[] = {5000, 0, 1, 3000};
    logical_case logical = logical_init();
    logical.num_seqs = 4;
    memcpy(logical.lens, lens, sizeof(lens));
    logical.num_kv_heads = 2;
    logical.group_size = 3;
    logical.head_dim = logical.value_head_dim = 64;
    logical.query_type = logical.kv_type = logical.out_type = type;
    logical.seed = seed;
    made->logical = logical;
    logical_fill(&made->logical);
    placement where = placement_init(&made->logical, 16);
    where.shuffle = seed;
    paged_build(&made->logical, &where, &made->paged);

    made->out_bytes = (size_t)(4 * 6 * out_row_bytes(&made->logical));
    made->lse_bytes = 4 * 6 * sizeof(float);
    made->out = check_allocate(made->out_bytes);
    made->lse = check_allocate(made->lse_bytes);
    pageattn_context *context;
    if (pageattn_context_create(NULL, &context, NULL) != PAGEATTN_OK ||
        !paged_attend(&made->paged, context, "what is expected", made->out, made->lse))
        exit(1);
    pageattn_context_destroy(context);
}

static void forget(expectation *made)
{
    paged_free(&made->paged);
    logical_free(&made->logical);
    free(made->out);
    free(made->lse);
}

/* NULL, or what is wrong. Any thread may call it. */
static const char *why_wrong(const expectation *expected, pool_kind kind, int64_t pool_threads,
                             int32_t num_threads)
{
    XLA_FFI_ExecutionContext *execution = new_execution(kind, pool_threads);
    char *out = check_allocate(expected->out_bytes);
    char *lse = check_allocate(expected->lse_bytes);
    frame made;
    make_frame(&made, &expected->paged.args, num_threads, execution, out, lse);
    XLA_FFI_Error *error = pageattn_jax_page_attention(&made.call);
    const char *why = error != NULL                                     ? "an error"
                      : memcmp(out, expected->out, expected->out_bytes) ? "other bits of out"
                      : memcmp(lse, expected->lse, expected->lse_bytes) ? "other bits of lse"
                                                                        : NULL;
    if (error != NULL)
        destroy_error(&(XLA_FFI_Error_Destroy_Args){.error = error});
    /* Late tasks find the call's memory gone. */
    memset(out, 0, expected->out_bytes);
    free(out);
    free(lse);
    free_execution(execution);
    return why;
}

/* ---- the tests ---- */

static const pool_kind kinds[] = {IN_THREADS, INLINE, LATE, REFUSING, NO_POOL};
static const char *const kind_names[] = {"threads", "inline", "late", "refusing", "no pool"};

static void test_pools(const expectation *expected)
{
    static const int64_t pool_threads[] = {1, 2, 7, 64, 100000, 0, -1};
    static const int32_t num_threads[] = {0, 1, 3};
    for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++)
        for (size_t p = 0; p < sizeof(pool_threads) / sizeof(*pool_threads); p++)
            for (size_t n = 0; n < sizeof(num_threads) / sizeof(*num_threads); n++) {
                char name[96];
                snprintf(name, sizeof(name), "pool: %s, of %lld, %d wanted", kind_names[k],
                         (long long)pool_threads[p], (int)num_threads[n]);
                const char *why = why_wrong(expected, kinds[k], pool_threads[p], num_threads[n]);
                if (why != NULL)
                    check_failed(name, "%s", why);
                else
                    check_passed(name);
            }
}

typedef struct caller {
    const expectation *expected;
    int index;
    const char *why;
} caller;

static void *call_often(void *arg)
{
    caller *self = arg;
    const int num_calls = reduced_matrix() ? 4 : 12;
    for (int i = 0; i < num_calls && self->why == NULL; i++)
        self->why = why_wrong(&self->expected[self->index % 3], kinds[(self->index + i) % 3],
                              1 + (self->index + i) % 5, 0);
    return NULL;
}

static void test_callers_at_the_same_time(const expectation *expected)
{
    pthread_t threads[NUM_CALLERS];
    caller callers[NUM_CALLERS];
    for (int i = 0; i < NUM_CALLERS; i++) {
        callers[i] = (caller){.expected = expected, .index = i};
        if (pthread_create(&threads[i], NULL, call_often, &callers[i]) != 0)
            exit(1);
    }
    for (int i = 0; i < NUM_CALLERS; i++) {
        char name[64];
        pthread_join(threads[i], NULL);
        snprintf(name, sizeof(name), "caller %d of %d at the same time", i, NUM_CALLERS);
        if (callers[i].why != NULL)
            check_failed(name, "%s", callers[i].why);
        else
            check_passed(name);
    }
}

#define NUM_TASKS 300

static void count_task(void *arg, int64_t index)
{
    atomic_fetch_add((_Atomic int *)arg + index, 1);
}

static void test_each_task_runs_once(void)
{
    for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++)
        for (int64_t num_tasks = 0; num_tasks <= NUM_TASKS; num_tasks += num_tasks < 4 ? 1 : 99) {
            _Atomic int counts[NUM_TASKS];
            char name[64];
            int right = 1;
            for (int i = 0; i < NUM_TASKS; i++)
                atomic_init(&counts[i], 0);
            XLA_FFI_ExecutionContext *execution = new_execution(kinds[k], 4);
            pageattn_jax_pool pool = {.api = &api, .execution = execution};
            pageattn_jax_parallel_for(&pool, num_tasks, count_task, counts);
            for (int i = 0; i < NUM_TASKS; i++)
                right &= atomic_load(&counts[i]) == (i < num_tasks);
            free_execution(execution);
            for (int i = 0; i < NUM_TASKS; i++)
                right &= atomic_load(&counts[i]) == (i < num_tasks);
            snprintf(name, sizeof(name), "%lld tasks, %s", (long long)num_tasks, kind_names[k]);
            check_that(right, name);
        }
}

/* Calls with the frame, and compares the start of the message. NULL: success is expected. */
static void check_call(frame *made, const char *name, XLA_FFI_Error_Code code, const char *start)
{
    XLA_FFI_Error *error = pageattn_jax_page_attention(&made->call);
    if (start == NULL ? error == NULL
                      : error != NULL && error->code == code &&
                            strncmp(error->message, start, strlen(start)) == 0)
        check_passed(name);
    else
        check_failed(name, "%s", error == NULL ? "no error" : error->message);
    if (error != NULL)
        destroy_error(&(XLA_FFI_Error_Destroy_Args){.error = error});
}

static void renew(frame *made, const pageattn_args *args, XLA_FFI_ExecutionContext *execution,
                  void *out)
{
    make_frame(made, args, 0, execution, out, NULL);
}

static void test_errors(const expectation *expected)
{
    const XLA_FFI_Error_Code argument = XLA_FFI_Error_Code_INVALID_ARGUMENT;
    XLA_FFI_ExecutionContext *execution = new_execution(IN_THREADS, 2);
    char *out = check_allocate(expected->out_bytes);
    frame made;
    const pageattn_args *args = &expected->paged.args;
    int32_t *lens = args->context_lens.data, *entry = table_entry(&expected->paged, 3, 17);
    const int32_t right_len = lens[2], right_entry = *entry;

    renew(&made, args, execution, out);
    check_call(&made, "a right call", argument, NULL);
    lens[2] = -4;
    check_call(&made, "a wrong length", argument, "context_lens[2] = -4");
    lens[2] = right_len;
    *entry = 99999;
    check_call(&made, "a wrong page", argument, "block_tables[3][17] = 99999 is outside [0, ");
    *entry = right_entry;
    made.call.attrs.size = 12;
    check_call(&made, "an attribute less", argument, "pageattn: the number of attributes");
    renew(&made, args, execution, out);
    made.scalars[6].dtype = XLA_FFI_DataType_S32;
    check_call(&made, "an attribute's type", argument, "pageattn: the attribute max_context_len");
    renew(&made, args, execution, out);
    made.spans[4].len = 3;
    check_call(&made, "an attribute's name", argument, "pageattn: the attribute kv_layout");
    renew(&made, args, execution, out);
    made.attr_types[4] = XLA_FFI_AttrType_STRING;
    check_call(&made, "no scalar", argument, "pageattn: the attribute kv_layout");
    renew(&made, args, execution, out);
    made.call.args.size = 4;
    check_call(&made, "an argument less", argument, "pageattn: the number of buffers");
    renew(&made, args, execution, out);
    made.call.rets.size = 0;
    check_call(&made, "no result", argument, "pageattn: the number of buffers");
    renew(&made, args, execution, out);
    made.buffers[4].rank = 1;
    check_call(&made, "a wrong rank", argument, "pageattn: the axes of block_tables");
    renew(&made, args, execution, out);
    made.buffers[5].rank = 1;
    check_call(&made, "a result of a small rank", argument, "pageattn: the axes of query");
    renew(&made, args, execution, out);
    made.buffers[0].dtype = XLA_FFI_DataType_F64;
    check_call(&made, "a wrong type", argument, "query");
    renew(&made, args, execution, out);
    made.values[4] = 7;
    check_call(&made, "a wrong layout", argument, "key_cache");
    renew(&made, args, execution, out);
    made.values[3] = 99;
    check_call(&made, "a wrong instruction set", argument, "options->isa = 99");
    free(out);
    free_execution(execution);
}

/* Puts two axes of vmap before the others. */
static void put_batch_axes(XLA_FFI_Buffer *buffer, int64_t outer, int64_t inner)
{
    memmove(buffer->dims + 2, buffer->dims, (size_t)buffer->rank * sizeof(int64_t));
    buffer->dims[0] = outer;
    buffer->dims[1] = inner;
    buffer->rank += 2;
}

#define OUTER 2
#define INNER 3
#define NUM_ENTRIES (OUTER * INNER)

/* The arguments of a batch of 2 x 3 calls, one after the other: the queries differ along the outer
 * axis, the lengths along the inner one. */
typedef struct batch {
    size_t query_bytes, lens_bytes, tables_bytes;
    char *queries, *lens, *tables;
} batch;

static void make_batch(batch *made, const expectation *expected)
{
    const pageattn_args *args = &expected->paged.args;
    const int64_t num_seqs = args->block_tables.shape[0], max_blocks = args->block_tables.shape[1];
    made->query_bytes = (size_t)(num_seqs * 6 * 64 * type_bytes(args->query.type));
    made->lens_bytes = (size_t)num_seqs * sizeof(int32_t);
    made->tables_bytes = (size_t)(num_seqs * max_blocks) * sizeof(int32_t);
    made->queries = check_allocate(NUM_ENTRIES * made->query_bytes);
    made->lens = check_allocate(NUM_ENTRIES * made->lens_bytes);
    made->tables = check_allocate(NUM_ENTRIES * made->tables_bytes);
    memset(made->queries, 0, NUM_ENTRIES * made->query_bytes); /* the mean of the values */
    memset(made->tables, 0xff, NUM_ENTRIES * made->tables_bytes);
    for (size_t entry = 0; entry < NUM_ENTRIES; entry++) {
        int32_t *lens = (int32_t *)(void *)(made->lens + entry * made->lens_bytes);
        int32_t *tables = (int32_t *)(void *)(made->tables + entry * made->tables_bytes);
        if (entry < INNER)
            memcpy(made->queries + entry * made->query_bytes, args->query.data, made->query_bytes);
        memcpy(lens, args->context_lens.data, made->lens_bytes);
        lens[0] -= (int32_t)(entry % INNER);
        for (int64_t seq = 0; seq < num_seqs; seq++)
            memcpy(tables + seq * max_blocks, table_entry(&expected->paged, seq, 0),
                   (size_t)num_blocks_of(&expected->paged, seq) * sizeof(int32_t));
    }
}

static void free_batch(batch *made)
{
    free(made->queries);
    free(made->lens);
    free(made->tables);
}

/* The query differs along the outer axis only, the lengths along the inner one, and the table is
 * the same for all. The queries are moved for that. */
static void share_what_is_equal(frame *made, batch *arguments)
{
    memcpy(arguments->queries + arguments->query_bytes,
           arguments->queries + INNER * arguments->query_bytes, arguments->query_bytes);
    made->buffers[0].dims[1] = made->buffers[3].dims[0] = 1;
    made->buffers[4].dims[0] = made->buffers[4].dims[1] = 1;
}

/* Each entry of a batch must have the bits of a call of its own: where it shares the caches only,
 * and where it shares more. */
static void test_batch(const expectation *expected, int share)
{
    XLA_FFI_ExecutionContext *execution = new_execution(IN_THREADS, 2);
    const pageattn_args *args = &expected->paged.args;
    char *outs = check_allocate(NUM_ENTRIES * expected->out_bytes);
    char *out = check_allocate(expected->out_bytes);
    batch arguments, separate;
    make_batch(&arguments, expected);
    make_batch(&separate, expected);

    frame made;
    renew(&made, args, execution, outs);
    for (int i = 0; i < 7; i++)
        put_batch_axes(&made.buffers[i], i == 1 || i == 2 ? 1 : OUTER,
                       i == 1 || i == 2 ? 1 : INNER);
    if (share)
        share_what_is_equal(&made, &arguments);
    made.buffers[0].data = arguments.queries;
    made.buffers[3].data = arguments.lens;
    made.buffers[4].data = arguments.tables;
    check_call(&made, share ? "a batch that shares" : "a batch", XLA_FFI_Error_Code_OK, NULL);

    for (size_t entry = 0; entry < NUM_ENTRIES; entry++) {
        char name[48];
        renew(&made, args, execution, out);
        made.buffers[0].data = separate.queries + entry * separate.query_bytes;
        made.buffers[3].data = separate.lens + entry * separate.lens_bytes;
        made.buffers[4].data = separate.tables + entry * separate.tables_bytes;
        snprintf(name, sizeof(name), "entry %zu of a batch%s", entry, share ? " that shares" : "");
        check_call(&made, name, XLA_FFI_Error_Code_OK, NULL);
        const char *of_batch = outs + entry * expected->out_bytes;
        check_that(memcmp(out, of_batch, expected->out_bytes) == 0, name);
    }
    free_batch(&arguments);
    free_batch(&separate);
    free(outs);
    free(out);
    free_execution(execution);
}

static void test_other_stages(void)
{
    XLA_FFI_Metadata metadata = {.struct_size = XLA_FFI_Metadata_STRUCT_SIZE};
    XLA_FFI_Metadata_Extension extension = {
        .extension_base = {.struct_size = XLA_FFI_Metadata_Extension_STRUCT_SIZE,
                           .type = XLA_FFI_Extension_Metadata},
        .metadata = &metadata,
    };
    XLA_FFI_CallFrame call = {.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE,
                              .extension_start = &extension.extension_base};
    check_that(pageattn_jax_page_attention(&call) == NULL &&
                   metadata.api_version.major_version == XLA_FFI_API_MAJOR &&
                   metadata.api_version.minor_version == XLA_FFI_API_MINOR && metadata.traits == 0,
               "metadata");
    call = (XLA_FFI_CallFrame){.api = &api, .stage = XLA_FFI_ExecutionStage_PREPARE};
    check_that(pageattn_jax_page_attention(&call) == NULL, "a stage without work");
}

static void report_hung(int number)
{
    (void)number;
    static const char line[] = "FAILED hung\n";
    (void)!write(STDOUT_FILENO, line, sizeof(line) - 1);
    _exit(1);
}

int main(int argc, char **argv)
{
    static const pageattn_type types[] = {PAGEATTN_F32, PAGEATTN_BF16, PAGEATTN_F16};
    expectation expected[3];
    check_start(argc, argv);
    name_crashes();
    signal(SIGALRM, report_hung);
    alarm(HUNG_SECONDS);
    for (int i = 0; i < 3; i++)
        expect(&expected[i], types[i], check.seed + (uint64_t)i);

    test_each_task_runs_once();
    for (int i = 0; i < 3; i++)
        test_pools(&expected[i]);
    test_callers_at_the_same_time(expected);
    for (int i = 0; i < 6; i++)
        test_batch(&expected[i / 2], i % 2);
    test_errors(&expected[0]);
    test_other_stages();
    wait_for_threads();
    check_that(atomic_load(&num_errors) == 0, "every error of XLA was destroyed");

    for (int i = 0; i < 3; i++)
        forget(&expected[i]);
    return check_finish();
}

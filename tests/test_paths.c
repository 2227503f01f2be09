/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths that only an odd system, a small CPU or an absurd call leads to: each ends in a status, or
 * in an answer, and never in something silent. Linked with --wrap for what the system is asked.
 */
#define _GNU_SOURCE /* sched_getaffinity */

#include <limits.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "executor.h"
#include "fake_files.h"
#include "kernel/kernels.h"
#include "operands.h"
#include "paged_case.h"
#include "thread_sanitizer.h"
#include "usable_threads.h"
#include "workers.h"

/* ---- what the system refuses ---- */

static int no_memory, no_affinity;
static pageattn_isa missing_isa;

void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
int __real_sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *mask);
int __wrap_sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *mask);
int __real_pageattn_isa_available(pageattn_isa isa);
int __wrap_pageattn_isa_available(pageattn_isa isa);

void *__wrap_calloc(size_t count, size_t bytes)
{
    return no_memory ? NULL : __real_calloc(count, bytes);
}

int __wrap_sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *mask)
{
    return no_affinity ? -1 : __real_sched_getaffinity(process, bytes, mask);
}

int __wrap_pageattn_isa_available(pageattn_isa isa)
{
    return isa != missing_isa && __real_pageattn_isa_available(isa);
}

/* ---- small right calls to start from ---- */

static logical_case logical;
static paged_case paged;

static void build_call(void)
{
    logical = logical_init();
    logical.num_kv_heads = 2;
    logical.lens[0] = 1000;
    logical_fill(&logical);
    const placement where = placement_init(&logical, 16);
    paged_build(&logical, &where, &paged);
}

static void free_call(void)
{
    paged_free(&paged);
    logical_free(&logical);
}

static pageattn_context *create(const pageattn_context_options *options)
{
    pageattn_context *context;
    pageattn_error error;
    if (pageattn_context_create(options, &context, &error) != PAGEATTN_OK) {
        printf("FAILED context: %s\n", error.message);
        exit(1);
    }
    return context;
}

static pageattn_context_options threads(int32_t count)
{
    pageattn_context_options options;
    pageattn_context_options_init(&options);
    options.num_threads = count;
    options.min_bytes_per_worker = 1;
    return options;
}

/* The call has that status, its sentence holds `part`, and nothing was written. */
static void expect_refusal(const char *name, pageattn_status wanted, const char *part,
                           pageattn_status got, const pageattn_error *error)
{
    if (got != wanted || error->status != wanted || strstr(error->message, part) == NULL)
        check_failed(name, "status %d instead of %d: %s", (int)got, (int)wanted,
                     got == PAGEATTN_OK ? "" : error->message);
    else if (!region_is_untouched(&paged.out) || !region_is_untouched(&paged.lse))
        check_failed(name, "wrote to out or lse");
    else
        check_passed(name);
}

/* ---- how many threads ---- */

static void test_affinity_unknown(void)
{
    no_affinity = 1;
    check_that(pageattn_affinity_cpus() == (int32_t)sysconf(_SC_NPROCESSORS_ONLN),
               "no affinity mask: all CPUs");
    no_affinity = 0;
}

/* A path that no buffer holds is no limit, and no overflow. */
static void test_long_paths(void)
{
    static char root[PATH_MAX + 10], mounts[PATH_MAX], groups[PATH_MAX], deep[3000];
    memset(root, 'r', sizeof(root) - 1);
    check_that(pageattn_cgroup_cpus(root) == INT32_MAX, "a root that is too long");

    memset(deep, 'd', sizeof(deep) - 1);
    const int mounts_length =
        snprintf(mounts, sizeof(mounts), "1 2 0:3 / /%s rw - cgroup2 cgroup2 rw\n", deep);
    const int groups_length = snprintf(groups, sizeof(groups), "0::/%s\n", deep);
    const fake_file files[] = {{"/proc/self/mountinfo", mounts, (size_t)mounts_length},
                               {"/proc/self/cgroup", groups, (size_t)groups_length},
                               {"/cpu.max", "100000 100000\n", 14}};
    fake_files_show(files, 3);
    check_that(pageattn_cgroup_cpus("") == INT32_MAX, "a group whose path is too long");
    check_that(fake_files_hide() == 0, "files are closed");
}

static void test_unreadable_files(void)
{
    char root[] = P_tmpdir "/test_paths.XXXXXX", path[100];
    static const char *const folders[] = {"", "/proc", "/proc/self", "/proc/self/mountinfo",
                                          "/proc/self/cgroup"};
    if (mkdtemp(root) == NULL) {
        check_failed("unreadable files", "no temporary folder");
        return;
    }
    for (int i = 1; i < 5; i++) {
        snprintf(path, sizeof(path), "%s%s", root, folders[i]);
        mkdir(path, 0700);
    }
    check_that(pageattn_cgroup_cpus(root) == INT32_MAX, "folders in place of files");
    for (int i = 4; i >= 0; i--) {
        snprintf(path, sizeof(path), "%s%s", root, folders[i]);
        rmdir(path);
    }
}

/* ---- which instruction set ---- */

static void test_missing_isa(void)
{
    pageattn_context_options options = threads(1);
    pageattn_context *context;
    pageattn_error error;
    missing_isa = options.isa = PAGEATTN_ISA_SCALAR;
    const pageattn_status status = pageattn_context_create(&options, &context, &error);
    expect_refusal("a CPU without what is asked for", PAGEATTN_ERROR_ISA,
                   "options->isa asks for scalar", status, &error);
    check_that(context == NULL, "no context of a missing instruction set");
    const char *list = strstr(error.message, "available: ");
    check_that(list != NULL && strstr(list, "scalar") == NULL, "the list is without it");
    missing_isa = PAGEATTN_ISA_AUTO;
}

static void test_isa_environment(void)
{
    static const char *const values[] = {"auto", "", "scalar"};
    for (int i = 0; i < 3; i++) {
        const fake_file variable = {"PAGEATTN_ISA", values[i], strlen(values[i]) + 1};
        const pageattn_context_options options = threads(1);
        fake_files_show(&variable, 1);
        pageattn_context *context = create(&options);
        fake_files_hide();
        check_that(pageattn_context_isa(context) ==
                       (i == 2 ? PAGEATTN_ISA_SCALAR : pageattn_best_isa()),
                   values[i]);
        pageattn_context_destroy(context);
    }
}

static void test_has_fast(void)
{
    pageattn_context_options options = threads(1);
    options.isa = PAGEATTN_ISA_SCALAR;
    pageattn_context *scalar = create(&options);
    check_that(pageattn_fast_kernels_of(PAGEATTN_ISA_AUTO, PAGEATTN_PREFETCH_L2) == NULL,
               "auto has no kernels");
    check_that(pageattn_kernels_of(PAGEATTN_ISA_AUTO, PAGEATTN_PREFETCH_L2) == NULL,
               "nor exact ones");
    check_that(!pageattn_context_has_fast(NULL, PAGEATTN_BF16), "no context has no fast");
    check_that(!pageattn_context_has_fast(scalar, PAGEATTN_BF16), "scalar has no fast");
    pageattn_context_destroy(scalar);
    options.isa = PAGEATTN_ISA_AUTO;
    pageattn_context *best = create(&options);
    static const int no_types[] = {PAGEATTN_NO_TYPE, PAGEATTN_I32, -1, 77};
    for (int i = 0; i < 4; i++)
        check_that(!pageattn_context_has_fast(best, (pageattn_type)no_types[i]),
                   "no fast for what is no type of a cache");
    pageattn_context_destroy(best);
}

/* ---- tensors ---- */

static void test_tensor_arithmetic(void)
{
    const int64_t half = INT64_C(1) << 62;
    int64_t low, high;
    check_that(pageattn_type_bytes(PAGEATTN_NO_TYPE) == 0, "no type has no size");
    pageattn_tensor tensor = pageattn_tensor_2d(NULL, PAGEATTN_F16, 2, 2);
    tensor.stride[0] = tensor.stride[1] = half / 2;
    check_that(!pageattn_tensor_span(&tensor, &low, &high), "a span of 2^63 and a bit");
    tensor.stride[0] = half / 2;
    tensor.stride[1] = -half / 2;
    check_that(!pageattn_tensor_span(&tensor, &low, &high), "2^62 to either side");
    tensor.stride[0] = tensor.stride[1] = half;
    check_that(!pageattn_tensor_span(&tensor, &low, &high), "a stride of 2^63 bytes");
    tensor.shape[0] = tensor.shape[1] = half;
    check_that(!pageattn_tensor_span(&tensor, &low, &high), "a reach of 2^124 elements");
    tensor.shape[0] = tensor.shape[1] = 2;
    tensor.stride[0] = tensor.stride[1] = 1;
    check_that(pageattn_tensor_span(&tensor, &low, &high) && low == 0 && high == 6,
               "an ordinary span");
}

/* ---- scratch ---- */

typedef struct shape {
    int64_t seqs, heads, kv_heads, dim, value_dim, page_size, blocks, max_context_len;
    int32_t splits;
    const char *name;
    int fits;
} shape;

/* All strides are 0 but those of out, so that nothing but the sizes can be wrong. */
static pageattn_args args_of(const shape *sizes)
{
    pageattn_args args;
    pageattn_args_init(&args);
    args.query = pageattn_tensor_3d(NULL, PAGEATTN_F16, sizes->seqs, sizes->heads, sizes->dim);
    args.out = pageattn_tensor_3d(NULL, PAGEATTN_F16, sizes->seqs, sizes->heads, sizes->value_dim);
    args.key_cache = pageattn_cache(NULL, PAGEATTN_F16, PAGEATTN_HND_PAGES, sizes->kv_heads, 1,
                                    sizes->page_size, sizes->dim);
    args.value_cache = pageattn_cache(NULL, PAGEATTN_F16, PAGEATTN_HND_PAGES, sizes->kv_heads, 1,
                                      sizes->page_size, sizes->value_dim);
    args.context_lens = pageattn_tensor_1d(NULL, PAGEATTN_I32, sizes->seqs);
    args.block_tables = pageattn_tensor_2d(NULL, PAGEATTN_I32, sizes->seqs, sizes->blocks);
    memset(args.key_cache.stride, 0, 3 * sizeof(int64_t));
    memset(args.value_cache.stride, 0, 3 * sizeof(int64_t));
    memset(args.block_tables.stride, 0, sizeof(args.block_tables.stride));
    args.max_context_len = sizes->max_context_len;
    args.num_splits = sizes->splits;
    return args;
}

static void test_scratch_sizes(void)
{
#define POWER(n) (INT64_C(1) << (n))
    static const shape shapes[] = {
        {1, 1, 1, 1, 1, 16, 4, -1, 0, "a small call", 1},
        {POWER(30), 1, 1, 1, 1, 16, 4, -1, 0, "2^30 sequences", 1},
        {POWER(60), 1, 1, 1, 1, 16, 4, -1, 0, "2^60 sequences", 0},
        {1, POWER(60), 1, 1, 1, 16, 4, -1, 0, "2^60 heads, padded", 0},
        {1, POWER(56), 1, 1, 1, 16, 4, -1, 0, "2^56 heads, states", 0},
        {1, POWER(55), 1, 1, 1, 16, 4, -1, 0, "2^55 heads, logits", 0},
        {1, POWER(53), 1, 1, 1, 16, 4, -1, 0, "2^53 heads, one worker too many", 0},
        {1, POWER(44), 1, 1, 1, 16, 4, -1, 0, "2^44 heads", 1},
        {POWER(20), POWER(20), POWER(20), 1, 1, POWER(31), POWER(20), -1, 0, "2^83 pieces", 0},
        {POWER(20), POWER(20), POWER(20), 1, 1, POWER(31), POWER(20), 1000, 0, "bounded", 1},
        {POWER(31), POWER(31), POWER(31), 1, 1, 1, 1, -1, 0, "2^62 rows", 0},
        {1, 64, 1, 1, 1, POWER(10), POWER(30), -1, INT32_MAX, "2^31 splits", 1},
        {POWER(20), 1, 1, 1, 1, POWER(20), POWER(20), -1, INT32_MAX,
         "2^20 sequences in 2^31 splits", 1},
        {POWER(20), POWER(10), 1, 1, 1, POWER(20), POWER(20), -1, INT32_MAX,
         "2^20 sequences in 2^31 splits, 2^10 heads", 0},
    };
#undef POWER
    const pageattn_context_options options = threads(2);
    pageattn_context *context = create(&options);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        const pageattn_args args = args_of(&shapes[i]);
        pageattn_error error;
        size_t bytes = 0;
        const pageattn_status status = pageattn_scratch_bytes(context, &args, &bytes, &error);
        if (shapes[i].fits && status == PAGEATTN_OK && bytes > 0)
            check_passed(shapes[i].name);
        else if (shapes[i].fits)
            check_failed(shapes[i].name, "status %d, %zu bytes: %s", (int)status, bytes,
                         error.message);
        else
            expect_refusal(shapes[i].name, PAGEATTN_ERROR_OVERFLOW, "does not fit", status, &error);
    }
    pageattn_context_destroy(context);
}

static void test_scratch_past_the_end(void)
{
    const pageattn_context_options options = threads(1);
    pageattn_context *context = create(&options);
    pageattn_args args = paged.args;
    pageattn_error error;
    args.scratch = (void *)(UINTPTR_MAX - PAGEATTN_SCRATCH_ALIGNMENT + 1);
    args.scratch_bytes = 1 << 20;
    const pageattn_status status = pageattn_attend(context, &args, &error);
    expect_refusal("scratch at the end of the address space", PAGEATTN_ERROR_OVERFLOW,
                   "has no room", status, &error);
    pageattn_context_destroy(context);
}

/* ---- absurd but right ---- */

/* Pages of 2^40 tokens that are one in memory, and blocks of 2^31 of them: an ordinary answer. */
static void test_huge_pages_and_blocks(void)
{
    float row[16], out[16], query[16] = {1};
    int32_t len = 3, table = 0;
    const shape sizes = {1, 1, 1, 16, 16, INT64_C(1) << 40, 1, -1, 3, "", 1};
    pageattn_args args = args_of(&sizes);
    pageattn_context_options options = threads(2);
    pageattn_context *context = create(&options);
    pageattn_error error = {.message = ""};
    for (int i = 0; i < 16; i++)
        row[i] = (float)i;
    args.pages_per_compute_block = INT32_MAX;
    args.query.data = query;
    args.query.type = args.out.type = args.key_cache.type = args.value_cache.type = PAGEATTN_F32;
    args.key_cache.data = args.value_cache.data = row;
    args.context_lens.data = &len;
    args.block_tables.data = &table;
    args.out.data = out;
    if (pageattn_attend(context, &args, &error) != PAGEATTN_OK)
        check_failed("pages of 2^40 tokens", "%s", error.message);
    else
        check_that(memcmp(out, row, sizeof(row)) == 0, "pages of 2^40 tokens, all the same");

    /* More pages than an entry can name. */
    args.key_cache.shape[1] = args.value_cache.shape[1] = INT64_C(1) << 33;
    args.key_cache.shape[2] = args.value_cache.shape[2] = 16;
    table = INT32_MAX;
    check_that(pageattn_attend(context, &args, &error) == PAGEATTN_OK &&
                   memcmp(out, row, sizeof(row)) == 0,
               "page 2^31 - 1 of 2^33");
    table = -1;
    const pageattn_status status = pageattn_attend(context, &args, &error);
    expect_refusal("page -1 of 2^33", PAGEATTN_ERROR_BLOCK_TABLE,
                   "block_tables[0][0] = -1 is outside [0, 8589934592)", status, &error);
    pageattn_context_destroy(context);
}

/* ---- memory and executors ---- */

static void test_reference_without_memory(void)
{
    static double out[64], lse[2];
    pageattn_error error;
    no_memory = 1;
    const pageattn_status status = pageattn_reference(&paged.args, out, lse, &error);
    no_memory = 0;
    expect_refusal("the reference without memory", PAGEATTN_ERROR_MEMORY, "out of memory", status,
                   &error);
    check_that(pageattn_reference(&paged.args, out, NULL, &error) == PAGEATTN_OK,
               "the reference without lse");
    const pageattn_status misaligned =
        pageattn_reference(&paged.args, out, (double *)(void *)((char *)lse + 4), &error);
    expect_refusal("the reference's lse misaligned", PAGEATTN_ERROR_ALIGNMENT, "lse", misaligned,
                   &error);
}

/* All tasks, and one that nobody asked for. */
static void run_one_below(void *context, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)context;
    for (int64_t i = -1; i < num_tasks; i++)
        task(arg, i);
}

static void test_executor_below_zero(void)
{
    const pageattn_executor executor = {
        .struct_size = sizeof(executor), .num_workers = 2, .parallel_for = run_one_below};
    pageattn_context_options options = threads(0);
    options.executor = &executor;
    pageattn_context *context = create(&options);
    pageattn_error error;
    const pageattn_status status = pageattn_attend(context, &paged.args, &error);
    if (status == PAGEATTN_ERROR_EXECUTOR && strstr(error.message, "out of range") != NULL)
        check_passed("a task -1");
    else
        check_failed("a task -1", "status %d: %s", (int)status, error.message);
    pageattn_context_destroy(context);
}

/* Written by clang's coverage instrumentation at exit, which a child by _exit would skip. */
static void leave(int status)
{
    fflush(stdout);
    exit(status);
}

/* The child of a fork has no threads: its first call starts new ones, and gives the same bits. */
static void test_fork(void)
{
    const pageattn_context_options options = threads(3);
    pageattn_context *context = create(&options);
    float lse[2], child_lse[2];
    char out[2 * 16 * 4], child_out[2 * 16 * 4];
    pid_t workers[2];
    int status = -1;
    paged.args.num_splits = 4;
    if (!paged_attend(&paged, context, "before a fork", out, lse) ||
        !check_that(await_workers(workers, 2), "the workers of the call before a fork"))
        return;
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        const int attended =
            paged_attend(&paged, context, "in the child of a fork", child_out, child_lse);
        pageattn_context_destroy(context);
        leave(attended && memcmp(out, child_out, sizeof(out)) == 0 &&
                      memcmp(lse, child_lse, sizeof(lse)) == 0
                  ? 7
                  : 8);
    }
    waitpid(child, &status, 0);
    check_that(WIFEXITED(status) && WEXITSTATUS(status) == 7, "a call in the child of a fork");
    pageattn_context_destroy(context);
    pageattn_pool_destroy(NULL);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    name_crashes();
    build_call();
    test_affinity_unknown();
    test_long_paths();
    test_unreadable_files();
    test_missing_isa();
    test_isa_environment();
    test_has_fast();
    test_tensor_arithmetic();
    test_scratch_sizes();
    test_scratch_past_the_end();
    test_huge_pages_and_blocks();
    test_reference_without_memory();
    test_executor_below_zero();
    test_fork();
    free_call();
    return check_finish();
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random calls for as long as asked, by several threads at once: shapes, options, contexts,
 * executors and forks at random, wrong calls and refused memory and threads among them. Each result
 * is compared by bits with that of a second configuration: another instruction set, number of
 * threads, page size, layout, split. At the end it prints figures, and fails if a bit differed, a
 * refusal was not the expected one, memory leaked, or the resident memory kept growing.
 *
 *     soak [-s SEED] [SECONDS [THREADS]]        600 seconds and 3 threads unless told
 *
 * Linked with --wrap for pthread_create, which fails now and then.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "paged_case.h"

enum { MAX_CREW = 16, NUM_CONTEXTS = 6, MAX_GROWTH_MIB = 64, HUNG_SECONDS = 60 };

/* The sanitizers' runtimes keep their books over a fork: to AddressSanitizer the stacks of threads
 * that the child does not have stay poisoned, and stop it once memory is mapped there; a lock that
 * such a thread held stays locked. */
#ifdef SOAK_IS_SANITIZED
static const int may_fork = 0;
#else
static const int may_fork = 1;
#endif

/* ---- figures ---- */

typedef struct figures {
    atomic_long cases, calls, tokens, wrong_calls, refused_memory, refused_threads, contexts, forks;
    atomic_long failures;
} figures;

static figures count;

static void add(atomic_long *figure, int64_t n)
{
    atomic_fetch_add_explicit(figure, (long)n, memory_order_relaxed);
}

static void report(const char *what, const char *why, uint64_t seed)
{
    add(&count.failures, 1);
    printf("FAILED %s: %s; case seed %llu\n", what, why, (unsigned long long)seed);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double resident_mib(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%ld %ld", &pages, &resident) != 2)
        resident = 0;
    if (file != NULL)
        fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
}

static double peak_mib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

/* ---- refusals ---- */

static _Thread_local uint64_t luck; /* not 0: now and then memory and threads are refused */

static int refuses(void)
{
    return luck != 0 && check_random_int(&luck, 0, 3) == 0;
}

int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *arg)
{
    return refuses() ? EAGAIN : __real_pthread_create(thread, attributes, start, arg);
}

static atomic_long bytes_held;

static void *allocate(void *opaque, size_t bytes, size_t alignment)
{
    (void)opaque;
    if (refuses())
        return NULL;
    atomic_fetch_add(&bytes_held, (long)bytes);
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void deallocate(void *opaque, void *pointer, size_t bytes)
{
    (void)opaque;
    atomic_fetch_sub(&bytes_held, (long)bytes);
    free(pointer);
}

/* ---- contexts ---- */

static void run_in_reverse(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    for (int64_t i = num_tasks; i-- > 0;)
        task(arg, i);
}

/* One in four beside an executor, else with a pool of up to 4 threads. */
static pageattn_context *draw_context(uint64_t *random, const pageattn_isa *isas, int num_isas)
{
    const pageattn_allocator allocator = {sizeof(allocator), NULL, allocate, deallocate};
    const pageattn_executor executor = {sizeof(executor), NULL,
                                        (int32_t)check_random_int(random, 1, 7), run_in_reverse};
    pageattn_context_options options;
    pageattn_context *context;
    pageattn_context_options_init(&options);
    options.isa = isas[check_random_int(random, 0, num_isas - 1)];
    options.allocator = &allocator;
    if (check_random_int(random, 0, 3) == 0)
        options.executor = &executor;
    else
        options.num_threads = (int32_t)check_random_int(random, 0, 4);
    options.spin_ns = check_random_int(random, 0, 1) * check_random_int(random, 0, 50000);
    options.min_bytes_per_worker = check_random_int(random, 0, 1) ? 1 : 0;
    while (pageattn_context_create(&options, &context, NULL) == PAGEATTN_ERROR_MEMORY)
        add(&count.refused_memory, 1);
    if (context == NULL) {
        report("a context", "refused for another reason than memory", 0);
        exit(1);
    }
    add(&count.contexts, 1);
    return context;
}

/* ---- calls ---- */

static int64_t draw_dim(uint64_t *random)
{
    static const int64_t common[] = {64, 80, 96, 128};
    return check_random_int(random, 0, 1) ? common[check_random_int(random, 0, 3)]
                                          : check_random_int(random, 1, 130);
}

static pageattn_type draw_type(uint64_t *random)
{
    return (pageattn_type)check_random_int(random, PAGEATTN_F32, PAGEATTN_F16);
}

static void draw_logical(uint64_t *random, logical_case *logical)
{
    *logical = logical_init();
    logical->num_seqs = check_random_int(random, 1, 6);
    logical->num_kv_heads = check_random_int(random, 1, 3);
    logical->group_size = check_random_int(random, 1, 6);
    logical->head_dim = draw_dim(random);
    logical->value_head_dim = check_random_int(random, 0, 2) ? logical->head_dim : draw_dim(random);
    logical->query_type = draw_type(random);
    logical->kv_type = draw_type(random);
    logical->out_type = draw_type(random);
    for (int64_t seq = 0; seq < logical->num_seqs; seq++)
        logical->lens[seq] =
            check_random_int(random, 0, check_random_int(random, 0, 5) ? 300 : 2500);
    if (check_random_int(random, 0, 3) == 0)
        logical->soft_cap = (float)(1 + 30 * check_random_unit(random));
    if (check_random_int(random, 0, 2) == 0)
        logical->window = (int32_t)check_random_int(random, 1, 700);
    if (check_random_int(random, 0, 2) == 0)
        logical->mask_value = (float)(-8 * check_random_unit(random));
    logical->seed = check_random(random) >> 8;
    logical_fill(logical);
}

static void draw_steering(uint64_t *random, pageattn_args *args)
{
    args->num_splits = (int32_t)(check_random_int(random, 0, 1) * check_random_int(random, 0, 9));
    args->pages_per_compute_block =
        (int32_t)(check_random_int(random, 0, 1) * check_random_int(random, 0, 99));
    args->inline_seq_dim = check_random_int(random, 0, 3) != 0;
    if (args->query.shape[0] % 2 == 0 && check_random_int(random, 0, 3) == 0)
        args->megacore_mode = PAGEATTN_MEGACORE_BATCH;
    if (args->key_cache.shape[0] % 2 == 0 && check_random_int(random, 0, 3) == 0)
        args->megacore_mode = PAGEATTN_MEGACORE_KV_HEAD;
}

static int nothing_written(const paged_case *paged)
{
    return region_is_untouched(&paged->out) && region_is_untouched(&paged->lse);
}

/* Spoils one thing of the call, for which it must be refused with the returned status. */
static pageattn_status spoil(uint64_t *random, paged_case *paged)
{
    pageattn_args *args = &paged->args;
    int32_t *len = (int32_t *)args->context_lens.data;
    switch (check_random_int(random, 0, 4)) {
    case 0:
        len[check_random_int(random, 0, args->query.shape[0] - 1)] = -1;
        return PAGEATTN_ERROR_CONTEXT_LEN;
    case 1:
        len[check_random_int(random, 0, args->query.shape[0] - 1)] = INT32_MAX;
        return PAGEATTN_ERROR_CONTEXT_LEN;
    case 2:
        args->value_cache.shape[3]++;
        return PAGEATTN_ERROR_SHAPE;
    case 3:
        args->attn_scale = (float)NAN;
        return PAGEATTN_ERROR_ARGUMENT;
    default:
        args->key_cache.stride[1] = INT64_MIN;
        return args->key_cache.shape[1] > 1 ? PAGEATTN_ERROR_OVERFLOW : PAGEATTN_OK;
    }
}

static void make_wrong_call(uint64_t *random, pageattn_context *context, paged_case *paged,
                            uint64_t seed)
{
    const pageattn_args args = paged->args;
    int32_t lens[MAX_SEQS];
    const size_t lens_bytes = (size_t)args.query.shape[0] * sizeof(int32_t);
    memcpy(lens, args.context_lens.data, lens_bytes);
    const pageattn_status wanted = spoil(random, paged);
    if (wanted != PAGEATTN_OK) {
        add(&count.wrong_calls, 1);
        if (pageattn_attend(context, &paged->args, NULL) != wanted)
            report("a wrong call", "not refused as it should", seed);
        if (!nothing_written(paged))
            report("a wrong call", "wrote something", seed);
    }
    paged->args = args;
    memcpy(args.context_lens.data, lens, lens_bytes);
}

/* Tries until no refusal comes in between. */
static int make_call(pageattn_context *context, paged_case *paged, uint64_t seed)
{
    for (;;) {
        const pageattn_status status = pageattn_attend(context, &paged->args, NULL);
        if (status == PAGEATTN_OK)
            return 1;
        if (!nothing_written(paged))
            report("a refused call", "wrote something", seed);
        if (status == PAGEATTN_ERROR_MEMORY)
            add(&count.refused_memory, 1);
        else if (status == PAGEATTN_ERROR_THREAD)
            add(&count.refused_threads, 1);
        else {
            report("a right call", pageattn_status_name(status), seed);
            return 0;
        }
    }
}

/* The logical case in one placement and on one context; out and lse as paged_attend gives them. */
static void run_case(uint64_t *random, const logical_case *logical, pageattn_context *context,
                     uint64_t seed, char *out, float *lse)
{
    static const int64_t page_sizes[] = {1, 8, 16, 32, 128};
    placement where = placement_init(logical, check_random_int(random, 0, 2)
                                                  ? page_sizes[check_random_int(random, 0, 4)]
                                                  : check_random_int(random, 1, 400));
    paged_case paged;
    placement_scatter(random, &where);
    paged_build(logical, &where, &paged);
    draw_steering(random, &paged.args);
    if (check_random_int(random, 0, 4) == 0)
        make_wrong_call(random, context, &paged, seed);
    luck = check_random_int(random, 0, 3) == 0 ? check_random(random) | 1 : 0;
    const int made = make_call(context, &paged, seed);
    luck = 0;
    add(&count.calls, 1);
    if (made) {
        take_rows(&paged.args.out, out_row_bytes(logical), out);
        take_rows(&paged.args.lse, sizeof(float), (char *)lse);
        if (!nothing_written(&paged))
            report("a call", "wrote between the rows of out or lse", seed);
    }
    paged_free(&paged);
}

typedef struct soaker {
    uint64_t random;
    double end_s;
    int forks;
    pageattn_context *contexts[NUM_CONTEXTS];
    pageattn_isa isas[MAX_ISAS];
    int num_isas;
} soaker;

static pageattn_context *pick_context(soaker *self)
{
    pageattn_context **context =
        &self->contexts[check_random_int(&self->random, 0, NUM_CONTEXTS - 1)];
    if (*context != NULL && check_random_int(&self->random, 0, 19) == 0) {
        pageattn_context_destroy(*context);
        *context = NULL;
    }
    if (*context == NULL) {
        luck = check_random_int(&self->random, 0, 3) == 0 ? check_random(&self->random) | 1 : 0;
        *context = draw_context(&self->random, self->isas, self->num_isas);
        luck = 0;
    }
    return *context;
}

static void compare_two(soaker *self)
{
    logical_case logical;
    const uint64_t seed = self->random;
    draw_logical(&self->random, &logical);
    const size_t rows = (size_t)(logical.num_seqs * num_heads_of(&logical));
    const size_t out_bytes = rows * (size_t)out_row_bytes(&logical);
    char *out[2];
    float *lse[2];
    for (int i = 0; i < 2; i++) {
        out[i] = check_allocate(out_bytes);
        lse[i] = check_allocate(rows * sizeof(float));
        run_case(&self->random, &logical, pick_context(self), seed, out[i], lse[i]);
    }
    if (memcmp(out[0], out[1], out_bytes) != 0 || memcmp(lse[0], lse[1], rows * sizeof(float)) != 0)
        report("two configurations", "other bits", seed);
    for (int i = 0; i < 2; i++) {
        free(out[i]);
        free(lse[i]);
    }
    add(&count.cases, 1);
    for (int64_t seq = 0; seq < logical.num_seqs; seq++)
        add(&count.tokens, 2 * logical.lens[seq]);
    logical_free(&logical);
}

/* A child uses the contexts that it inherits, which are idle here, and says how many failures it
 * had. */
static void fork_once(soaker *self)
{
    fflush(stdout);
    const pid_t id = fork();
    if (id == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(HUNG_SECONDS);
        atomic_store(&count.failures, 0);
        for (int i = 0; i < 3; i++)
            compare_two(self);
        fflush(stdout);
        _exit(atomic_load(&count.failures) != 0);
    }
    int status = 0;
    add(&count.forks, 1);
    while (id > 0 && waitpid(id, &status, 0) < 0 && errno == EINTR) {
    }
    if (id < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        report("the child of a fork", "failed or hung", self->random);
}

static void *soak(void *opaque)
{
    soaker *self = opaque;
    self->num_isas = available_isas(self->isas);
    while (now_s() < self->end_s && atomic_load(&count.failures) < 10) {
        compare_two(self);
        if (self->forks && check_random_int(&self->random, 0, 29) == 0)
            fork_once(self);
    }
    for (int i = 0; i < NUM_CONTEXTS; i++)
        pageattn_context_destroy(self->contexts[i]);
    return NULL;
}

/* ---- the program ---- */

static void print_figures(double seconds, int num_threads, double early_mib, double late_mib)
{
    printf("%.0f s, %d threads: %ld cases, %ld calls over %.3g million tokens, each case by two "
           "configurations\n",
           seconds, num_threads, atomic_load(&count.cases), atomic_load(&count.calls),
           (double)atomic_load(&count.tokens) / 1e6);
    printf("%ld contexts, %ld forks, %ld wrong calls refused, %ld refusals for memory, %ld for "
           "threads\n",
           atomic_load(&count.contexts), atomic_load(&count.forks), atomic_load(&count.wrong_calls),
           atomic_load(&count.refused_memory), atomic_load(&count.refused_threads));
    if (!may_fork)
        printf("no forks: the sanitizers' runtimes do not survive one beside other threads\n");
    printf("resident memory: %.1f MiB after a tenth of the time, %.1f MiB at the end, %.1f MiB at "
           "most\n",
           early_mib, late_mib, peak_mib());
}

int main(int argc, char **argv)
{
    uint64_t seed = 1;
    if (argc > 2 && strcmp(argv[1], "-s") == 0) {
        seed = strtoull(argv[2], NULL, 0);
        argv += 2, argc -= 2;
    }
    const double seconds = argc > 1 ? atof(argv[1]) : 600;
    const int num_threads = argc > 2 ? atoi(argv[2]) : 3;
    if (argc > 3 || seconds <= 0 || num_threads < 1 || num_threads > MAX_CREW) {
        fprintf(stderr, "usage: soak [-s SEED] [SECONDS [THREADS]]\n");
        return 2;
    }
    static soaker soakers[MAX_CREW];
    pthread_t threads[MAX_CREW];
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("seed %llu\n", (unsigned long long)seed);
    name_crashes();
    current_case = "soak";
    const double start = now_s();
    for (int i = 0; i < num_threads; i++) {
        soakers[i] = (soaker){.random = seed * MAX_CREW + (uint64_t)i,
                              .end_s = start + seconds,
                              .forks = may_fork && i == 0};
        if (pthread_create(&threads[i], NULL, soak, &soakers[i]) != 0) {
            printf("FAILED a thread\n");
            return 1;
        }
    }
    while (now_s() < start + seconds / 10)
        usleep(10000);
    const double early_mib = resident_mib();
    for (int i = 0; i < num_threads; i++)
        pthread_join(threads[i], NULL);
    const double late_mib = resident_mib();
    print_figures(now_s() - start, num_threads, early_mib, late_mib);
    if (atomic_load(&bytes_held) != 0)
        report("memory", "leaked", seed);
    if (late_mib > early_mib + MAX_GROWTH_MIB &&
        !reduced_matrix()) /* sanitizers keep what is freed */
        report("resident memory", "keeps growing", seed);
    printf("%ld passed, %ld failed\n", atomic_load(&count.cases), atomic_load(&count.failures));
    return atomic_load(&count.failures) != 0;
}

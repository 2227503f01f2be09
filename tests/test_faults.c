/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults: whatever the library asks of the system is refused, one request after the other, until a
 * whole life of a context passes without one. Each refusal ends in a status and a message, or in
 * nothing but a slower or smaller pool; nothing is written, nothing leaks, and the context is as
 * good as before. A warm context asks for no memory at all.
 *
 * Linked with --wrap for everything that the library calls and that can fail. What is not wrapped
 * fails only for arguments that the library never gives: pthread_sigmask, pthread_join, getpid, and
 * waking through a futex.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "small_call.h"

/* ---- Between the library and the system ---- */

typedef enum request {
    MALLOC,
    CALLOC,
    REALLOC,
    ALIGNED_ALLOC,
    POSIX_MEMALIGN,
    PTHREAD_CREATE,
    MMAP,
    MUNMAP,
    MADVISE,
    AFFINITY,
    SYSCONF,
    OPEN,
    READ,
    CLOSE,
    NUM_IN_TURN, /* the rest is asked for by workers, who knows when and how often */
    PRCTL = NUM_IN_TURN,
    CLOCK,
    YIELD,
    FUTEX_WAITING,
    NUM_REQUESTS,
} request;

static const char *const request_names[NUM_REQUESTS] = {
    "malloc", "calloc", "realloc", "aligned_alloc",     "posix_memalign", "pthread_create",
    "mmap",   "munmap", "madvise", "sched_getaffinity", "sysconf",        "open",
    "read",   "close",  "prctl",   "clock_gettime",     "sched_yield",    "futex",
};

static atomic_int num_asked[NUM_REQUESTS];
static atomic_int always_fails[NUM_REQUESTS];
static atomic_int num_in_turn; /* of all that come in turn */
static atomic_int fail_at;     /* this one of them fails; 0: none */
static atomic_int fail_after;  /* so do all after it */
static atomic_int failed_request = -1;
static atomic_int num_blocks, num_files; /* held by the library */
static atomic_long num_bytes_mapped;

/* Set on the thread that calls the library: a sanitizer's own requests on others are not meant. */
static _Thread_local int in_turn;

static int fails(request what)
{
    atomic_fetch_add_explicit(&num_asked[what], 1, memory_order_relaxed);
    if (atomic_load_explicit(&always_fails[what], memory_order_relaxed))
        return 1;
    if (what >= NUM_IN_TURN || !in_turn)
        return 0;
    const int number = atomic_fetch_add(&num_in_turn, 1) + 1, first = atomic_load(&fail_at);
    if (first == 0 || number < first || (number > first && !atomic_load(&fail_after)))
        return 0;
    if (number == first)
        atomic_store(&failed_request, (int)what);
    return 1;
}

static void *hold(void *block)
{
    atomic_fetch_add(&num_blocks, block != NULL);
    return block;
}

#define WRAP(result, name, ...)                                                                    \
    result __real_##name(__VA_ARGS__);                                                             \
    result __wrap_##name(__VA_ARGS__);                                                             \
    result __wrap_##name(__VA_ARGS__)

WRAP(void *, malloc, size_t bytes)
{
    return fails(MALLOC) ? NULL : hold(__real_malloc(bytes));
}

WRAP(void *, calloc, size_t count, size_t bytes)
{
    return fails(CALLOC) ? NULL : hold(__real_calloc(count, bytes));
}

WRAP(void *, realloc, void *pointer, size_t bytes)
{
    return fails(REALLOC) ? NULL : __real_realloc(pointer, bytes);
}

WRAP(void *, aligned_alloc, size_t alignment, size_t bytes)
{
    return fails(ALIGNED_ALLOC) ? NULL : hold(__real_aligned_alloc(alignment, bytes));
}

WRAP(int, posix_memalign, void **pointer, size_t alignment, size_t bytes)
{
    return fails(POSIX_MEMALIGN) ? ENOMEM : __real_posix_memalign(pointer, alignment, bytes);
}

WRAP(void, free, void *pointer)
{
    atomic_fetch_sub(&num_blocks, pointer != NULL);
    __real_free(pointer);
}

WRAP(int, pthread_create, pthread_t *thread, const pthread_attr_t *attributes,
     void *(*start)(void *), void *arg)
{
    return fails(PTHREAD_CREATE) ? EAGAIN : __real_pthread_create(thread, attributes, start, arg);
}

WRAP(void *, mmap, void *where, size_t bytes, int protection, int flags, int file, off_t offset)
{
    void *memory =
        fails(MMAP) ? MAP_FAILED : __real_mmap(where, bytes, protection, flags, file, offset);
    if (memory != MAP_FAILED)
        atomic_fetch_add(&num_bytes_mapped, (long)bytes);
    return memory;
}

WRAP(int, munmap, void *memory, size_t bytes)
{
    const int status = fails(MUNMAP) ? -1 : __real_munmap(memory, bytes);
    if (status == 0)
        atomic_fetch_sub(&num_bytes_mapped, (long)bytes);
    return status;
}

WRAP(int, madvise, void *memory, size_t bytes, int advice)
{
    return fails(MADVISE) ? -1 : __real_madvise(memory, bytes, advice);
}

WRAP(int, sched_getaffinity, pid_t process, size_t bytes, cpu_set_t *mask)
{
    return fails(AFFINITY) ? -1 : __real_sched_getaffinity(process, bytes, mask);
}

/* The thread sanitizer's runtime asks this before it can bear instrumented code. */
#if defined(__has_attribute) && __has_attribute(disable_sanitizer_instrumentation)
#define NOT_INSTRUMENTED __attribute__((disable_sanitizer_instrumentation))
#else
#define NOT_INSTRUMENTED __attribute__((no_sanitize("thread")))
#endif

NOT_INSTRUMENTED long __wrap_sysconf(int name);

WRAP(long, sysconf, int name)
{
    return in_turn && fails(SYSCONF) ? -1 : __real_sysconf(name);
}

WRAP(int, open, const char *path, int flags, ...)
{
    const int file = fails(OPEN) ? -1 : __real_open(path, flags);
    atomic_fetch_add(&num_files, file >= 0);
    return file;
}

WRAP(ssize_t, read, int file, void *bytes, size_t count)
{
    errno = EIO;
    return fails(READ) ? -1 : __real_read(file, bytes, count);
}

/* Linux closes the file also where it reports an error. */
WRAP(int, close, int file)
{
    atomic_fetch_sub(&num_files, 1);
    const int failed = fails(CLOSE), status = __real_close(file);
    return failed ? -1 : status;
}

WRAP(int, prctl, int option, ...)
{
    va_list values;
    va_start(values, option);
    const unsigned long value = va_arg(values, unsigned long);
    va_end(values);
    return fails(PRCTL) ? -1 : __real_prctl(option, value);
}

WRAP(int, clock_gettime, clockid_t clock, struct timespec *now)
{
    return fails(CLOCK) ? -1 : __real_clock_gettime(clock, now);
}

WRAP(int, sched_yield, void)
{
    return fails(YIELD) ? -1 : __real_sched_yield();
}

/* Where futexes fail at all, none wakes anybody either. */
WRAP(long, syscall, long number, ...)
{
    long a[6];
    va_list values;
    va_start(values, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(values, long);
    va_end(values);
    errno = ENOSYS;
    if (number == SYS_futex && (int)a[1] == FUTEX_WAIT_PRIVATE && fails(FUTEX_WAITING))
        return -1;
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int num_libc_allocations(void)
{
    int count = 0;
    for (int i = MALLOC; i <= POSIX_MEMALIGN; i++)
        count += atomic_load(&num_asked[i]);
    return count;
}

/* ---- Memory of the caller's ---- */

/* Sizes for which a context's scratch must grow. */
static void set_small_call(void)
{
    reset();
    call.args.max_context_len = 0;
    memset(call.lens, 0, sizeof(call.lens));
    call.args.query.shape[0] = call.args.context_lens.shape[0] = 1;
    call.args.block_tables.shape[0] = call.args.out.shape[0] = call.args.lse.shape[0] = 1;
}

static pageattn_context *context_in(ledger *book, pageattn_error *error)
{
    pageattn_context_options options;
    const pageattn_allocator allocator = ledger_allocator(book);
    pageattn_context *created = (pageattn_context *)&call; /* anything but NULL */
    pageattn_context_options_init(&options);
    options.allocator = &allocator;
    options.num_threads = 2;
    options.min_bytes_per_worker = 1;
    const pageattn_status status = pageattn_context_create(&options, &created, error);
    if ((status == PAGEATTN_OK) != (created != NULL))
        check_failed("creation under failing allocations", "status and context disagree");
    return created;
}

static int refused_for_memory(const char *name, pageattn_context *on)
{
    pageattn_error error;
    remember();
    const pageattn_status status = pageattn_attend(on, &call.args, &error);
    if (status == PAGEATTN_OK)
        return 0;
    if (status != PAGEATTN_ERROR_MEMORY || !matches("out of memory for *", error.message))
        check_failed(name, "%s: %s", pageattn_status_name(status), error.message);
    else if (!unchanged())
        check_failed(name, "wrote something");
    return 1;
}

/* Creates a context, makes a small call and a large one, with the n-th allocation failing. Returns
 * whether any failed. */
static int live_with_failure(const char *name, ledger *book)
{
    pageattn_error error;
    pageattn_context *created = context_in(book, &error);
    if (created == NULL) {
        if (error.status != PAGEATTN_ERROR_MEMORY)
            check_failed(name, "%s", error.message);
        return 1;
    }
    set_small_call();
    int failed = refused_for_memory(name, created);
    reset();
    failed |= refused_for_memory(name, created);
    book->fail_at = 0;
    right_call_succeeds(name, created);
    pageattn_context_destroy(created);
    return failed;
}

static void test_failing_allocations(void)
{
    int failed = 1;
    for (long n = 1; failed && n <= 100; n++) {
        char name[64];
        ledger book = {.fail_at = n};
        snprintf(name, sizeof(name), "allocation %ld fails", n);
        failed = live_with_failure(name, &book);
        if (book.bytes_held != 0)
            check_failed(name, "%lld bytes leaked", (long long)book.bytes_held);
        else
            check_passed(name);
        if (!failed)
            check_that(n > 3, "allocations failed for context, pool and scratch at least");
    }
}

/* A growing scratch that can't grow leaves the old one in use. */
static void test_failing_growth(void)
{
    ledger book = {0};
    pageattn_context *created = context_in(&book, NULL);
    set_small_call();
    if (created != NULL && succeeds("small call", created)) {
        const int64_t held = book.bytes_held;
        const long before = book.num_allocations;
        book.fail_at = before + 1;
        reset();
        check_that(refused_for_memory("scratch that can't grow", created) &&
                       book.bytes_held == held && book.num_allocations == before + 1,
                   "scratch that can't grow");
        set_small_call();
        check_that(succeeds("small call again", created) && book.num_allocations == before + 1,
                   "the old scratch still serves");
    }
    pageattn_context_destroy(created);
    check_that(book.bytes_held == 0, "nothing leaks after a failed growth");
}

static void vary_call(int round)
{
    reset();
    call.lens[0] = round % 20;
    call.args.sliding_window = round % 7;
    call.args.num_splits = round % 3;
    if (round % 5 == 4)
        call.args.inline_seq_dim = 0;
}

static void test_warm_calls_allocate_nothing(void)
{
    ledger book = {0};
    pageattn_context *created = context_in(&book, NULL);
    int num_wrong = 0;
    right_call_succeeds("warm-up", created);
    call.args.inline_seq_dim = 0;
    num_wrong += pageattn_attend(created, &call.args, NULL) != PAGEATTN_OK;
    const long before = book.num_allocations;
    const int libc_before = num_libc_allocations();
    for (int round = 0; round < 100; round++) {
        vary_call(round);
        num_wrong += pageattn_attend(created, &call.args, NULL) != PAGEATTN_OK;
        call.tables[2][1] = -1;
        num_wrong += pageattn_attend(created, &call.args, NULL) != PAGEATTN_ERROR_BLOCK_TABLE;
    }
    check_that(num_wrong == 0, "calls on a warm context");
    check_that(book.num_allocations == before, "a warm context asks its allocator for nothing");
    check_that(num_libc_allocations() == libc_before, "a warm context asks libc for nothing");
    pageattn_context_destroy(created);
    check_that(libc_before > 0, "allocations are counted at all");
    check_that(book.bytes_held == 0, "a warm context leaks nothing");
}

/* Threads start at the first parallel launch, which under inline_seq_dim = 0 need not be the call's
 * first launch: the empty sequence before it must not be written. */
static void test_failing_threads(const char *name, int32_t inline_seq_dim)
{
    ledger book = {0};
    pageattn_error error = {0};
    pageattn_context *created = context_in(&book, NULL);
    reset();
    call.lens[0] = 0;
    call.args.inline_seq_dim = inline_seq_dim;
    remember();
    atomic_store(&always_fails[PTHREAD_CREATE], 1);
    const pageattn_status status = pageattn_attend(created, &call.args, &error);
    atomic_store(&always_fails[PTHREAD_CREATE], 0);
    if (status != PAGEATTN_ERROR_THREAD || error.message[0] == '\0')
        check_failed(name, "returned \"%s\" (%s)", pageattn_status_name(status), error.message);
    else if (!unchanged())
        check_failed(name, "wrote something");
    else if (succeeds(name, created))
        check_passed(name);
    pageattn_context_destroy(created);
}

/* ---- A whole life, with one refusal after the other ---- */

enum { CACHE_BYTES = 3 * PAGEATTN_HUGE_PAGE_BYTES + 1 };

/* What became of the requests of one life. */
typedef struct life {
    const char *name;
    int num_refusals;
    const char *wrong; /* NULL: nothing */
} life;

static void judge(life *self, pageattn_status status, const pageattn_error *error)
{
    if (status == PAGEATTN_OK)
        return;
    self->num_refusals++;
    if (status != PAGEATTN_ERROR_MEMORY && status != PAGEATTN_ERROR_THREAD)
        self->wrong = pageattn_status_name(status);
    else if (error->status != status || error->message[0] == '\0')
        self->wrong = "a refusal without a message";
    else if (!unchanged())
        self->wrong = "a refused call wrote something";
}

static void make_call(life *self, pageattn_context *context)
{
    pageattn_error error;
    remember();
    judge(self, pageattn_attend(context, &call.args, &error), &error);
}

static void ask_reference(life *self)
{
    static double out[NUM_OUT];
    pageattn_error error;
    reset();
    remember();
    judge(self, pageattn_reference(&call.args, out, NULL, &error), &error);
}

/* Uses the context while requests are refused, and again when they are not. */
static void use_context(life *self, int32_t num_threads)
{
    pageattn_context_options options;
    pageattn_context *context;
    pageattn_error error;
    pageattn_context_options_init(&options);
    options.num_threads = num_threads;
    options.min_bytes_per_worker = 1;
    options.spin_ns = 1000;
    remember();
    const pageattn_status status = pageattn_context_create(&options, &context, &error);
    judge(self, status, &error);
    if ((status == PAGEATTN_OK) != (context != NULL))
        self->wrong = "status and context disagree";
    if (context == NULL)
        return;
    set_small_call();
    make_call(self, context);
    reset();
    make_call(self, context);
    const int first = atomic_exchange(&fail_at, 0);
    if (!right_call_succeeds(self->name, context))
        self->wrong = "the context is not usable afterwards";
    atomic_store(&fail_at, first);
    pageattn_context_destroy(context);
}

static void use_cache(life *self)
{
    void *cache = pageattn_cache_allocate(CACHE_BYTES);
    self->num_refusals += cache == NULL;
    pageattn_cache_free(cache, CACHE_BYTES);
}

static void live(life *self)
{
    reset();
    use_cache(self);
    use_context(self, 0);
    use_context(self, 3);
    ask_reference(self);
}

/* These have no way round them; everything else does. */
static int must_be_reported(int what)
{
    return what == CALLOC || what == ALIGNED_ALLOC || what == PTHREAD_CREATE || what == MMAP;
}

static const char *judge_life(const life *self, int refused, int repeats)
{
    if (self->wrong != NULL)
        return self->wrong;
    if (atomic_load(&num_blocks) != 0)
        return "memory leaked";
    if (atomic_load(&num_files) != 0)
        return "a file was left open";
    if (atomic_load(&num_bytes_mapped) != 0 && refused != MUNMAP && !repeats)
        return "memory stayed mapped";
    if (!repeats && refused >= 0 && self->num_refusals != must_be_reported(refused))
        return self->num_refusals ? "reported what it could do without" : "nobody was told";
    return NULL;
}

/* Lives with request `number` refused, and all after it if `repeats`. Returns whether one was. */
static int live_with_refusal(const char *where, int number, int repeats)
{
    char name[128];
    life one = {.name = name};
    snprintf(name, sizeof(name), "%s, request %d%s", where, number, repeats ? " and later" : "");
    atomic_store(&num_in_turn, 0);
    atomic_store(&num_bytes_mapped, 0);
    atomic_store(&failed_request, -1);
    atomic_store(&fail_after, repeats);
    atomic_store(&fail_at, number);
    live(&one);
    atomic_store(&fail_at, 0);
    const int refused = atomic_load(&failed_request);
    const char *wrong = judge_life(&one, refused, repeats);
    if (wrong != NULL)
        check_failed(name, "%s refused: %s", refused < 0 ? "nothing" : request_names[refused],
                     wrong);
    else
        check_passed(name);
    return refused >= 0;
}

static void test_lives(const char *where)
{
    for (int repeats = 0; repeats <= 1; repeats++) {
        int number = 1;
        while (live_with_refusal(where, number, repeats) && number < 10000)
            number++;
        printf("%s: %d requests refused%s, then a whole life passed\n", where, number - 1,
               repeats ? " with all after them" : " in turn");
        check_that(number > 20, "requests are counted at all");
    }
}

/* Refused every time, so that what the library falls back to is refused in turn as well. Whether
 * anybody had to wait, and so asked, is up to the scheduler: a machine that is busy enough needs
 * some lives more. */
static void test_lives_without(request what)
{
    char where[64];
    snprintf(where, sizeof(where), "without %s", request_names[what]);
    atomic_store(&num_asked[what], 0);
    atomic_store(&always_fails[what], 1);
    for (int tries = 0; tries < 100 && atomic_load(&num_asked[what]) == 0; tries++)
        test_lives(where);
    atomic_store(&always_fails[what], 0);
    check_that(atomic_load(&num_asked[what]) > 0, where);
}

/* ---- Without a clock ---- */

/* How long it has spun, nobody can tell; so an idle worker sleeps instead of spinning for ever. */
static void test_idle_workers_sleep_without_clock(void)
{
    ledger book = {0};
    atomic_store(&always_fails[CLOCK], 1);
    pageattn_context *created = context_in(&book, NULL);
    atomic_store(&num_asked[FUTEX_WAITING], 0);
    right_call_succeeds("without a clock", created);
    for (int i = 0; i < 5000 && atomic_load(&num_asked[FUTEX_WAITING]) == 0; i++)
        usleep(1000);
    check_that(atomic_load(&num_asked[FUTEX_WAITING]) > 0, "an idle worker sleeps without a clock");
    pageattn_context_destroy(created);
    atomic_store(&always_fails[CLOCK], 0);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    test_failing_allocations();
    test_failing_growth();
    test_warm_calls_allocate_nothing();
    test_failing_threads("no thread can be started", 1);
    test_failing_threads("no thread can be started, one launch a sequence", 0);
    test_idle_workers_sleep_without_clock();
    atomic_store(&num_blocks, 0);
    in_turn = 1;
    test_lives("all in order");
    test_lives_without(AFFINITY);
    test_lives_without(PRCTL);
    test_lives_without(CLOCK);
    test_lives_without(FUTEX_WAITING);
    return check_finish();
}

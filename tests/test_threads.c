/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts among threads, forks and signals: every call ends, with the bits of a quiet single
 * thread, or with a status that says why not. A hang is ended by an alarm and counts as a failure.
 */
#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "paged_case.h"
#include "workers.h"

enum { HUNG_SECONDS = 120, MANY = 16, ROW_BYTES = 4 * 8 * 64 * 4 };

/* ThreadSanitizer refuses threads in the child of a fork unless told otherwise. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

static void report_hung(void)
{
    const char *const parts[] = {"FAILED ", current_case, ": hung\n"};
    for (int i = 0; i < 3; i++)
        if (write(STDOUT_FILENO, parts[i], strlen(parts[i])) < 0)
            break;
    _exit(1);
}

static atomic_int watching;

/* A thread, since alarms belong to what is tested. */
static void *watch(void *unused)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    for (int i = 0; i < HUNG_SECONDS * 20 && atomic_load(&watching); i++)
        usleep(50000);
    if (atomic_load(&watching))
        report_hung();
    return unused;
}

/* ---- the call: inputs that all share, results of one's own ---- */

static logical_case logical;
static paged_case shared;
static char expected[ROW_BYTES];

typedef struct call {
    pageattn_args args;
    char out[ROW_BYTES];
} call;

static int num_calls(int full)
{
    return reduced_matrix() ? full / 10 : full;
}

static void set_call(call *mine)
{
    mine->args = shared.args;
    mine->args.out = pageattn_tensor_3d(mine->out, PAGEATTN_F32, logical.num_seqs,
                                        num_heads_of(&logical), logical.value_head_dim);
    mine->args.lse.type = PAGEATTN_NO_TYPE;
    memset(mine->out, UNTOUCHED, sizeof(mine->out));
}

static int is_right(const call *mine)
{
    return memcmp(mine->out, expected, sizeof(expected)) == 0;
}

static int is_untouched(const call *mine)
{
    for (size_t i = 0; i < sizeof(mine->out); i++)
        if ((unsigned char)mine->out[i] != UNTOUCHED)
            return 0;
    return 1;
}

static pageattn_status make_call(pageattn_context *context, call *mine)
{
    set_call(mine);
    return pageattn_attend(context, &mine->args, NULL);
}

/* 1 if the call succeeds with the right bits. */
static int call_is_right(pageattn_context *context)
{
    call mine;
    return make_call(context, &mine) == PAGEATTN_OK && is_right(&mine);
}

static pageattn_context *create(int32_t num_threads, int64_t spin_ns,
                                const pageattn_executor *executor)
{
    pageattn_context_options options;
    pageattn_context *context = NULL;
    pageattn_context_options_init(&options);
    options.num_threads = num_threads;
    options.executor = executor;
    options.spin_ns = spin_ns;
    options.min_bytes_per_worker = 1;
    if (pageattn_context_create(&options, &context, NULL) != PAGEATTN_OK) {
        check_failed(current_case, "no context");
        exit(check_finish());
    }
    return context;
}

static void build_inputs(void)
{
    static const int64_t lens[] = {700, 1, 0, 300};
    logical = logical_init();
    logical.num_seqs = 4;
    memcpy(logical.lens, lens, sizeof(lens));
    logical.num_kv_heads = 2;
    logical.group_size = 4;
    logical.head_dim = logical.value_head_dim = 64;
    logical.kv_type = PAGEATTN_BF16;
    logical.seed = check.seed;
    logical_fill(&logical);
    placement where = placement_init(&logical, 16);
    where.shuffle = 1;
    paged_build(&logical, &where, &shared);
    call first;
    pageattn_context *context = create(1, 0, NULL);
    check_that(make_call(context, &first) == PAGEATTN_OK, "a quiet call");
    memcpy(expected, first.out, sizeof(expected));
    pageattn_context_destroy(context);
}

typedef struct crew {
    pthread_t threads[MANY];
    int num_threads;
} crew;

static void start_crew(crew *all, int num_threads, void *(*work)(void *), void *arg)
{
    for (all->num_threads = 0; all->num_threads < num_threads; all->num_threads++)
        if (pthread_create(&all->threads[all->num_threads], NULL, work, arg) != 0)
            break;
    if (all->num_threads < num_threads)
        check_failed(current_case, "the test got only %d threads", all->num_threads);
}

static void join_crew(crew *all)
{
    for (int i = 0; i < all->num_threads; i++)
        pthread_join(all->threads[i], NULL);
}

/* ---- many contexts, and one for many ---- */

static atomic_int num_right, num_busy, num_wrong, number_of_thread, stopping;

static void reset_counts(void)
{
    atomic_store(&num_right, 0);
    atomic_store(&num_busy, 0);
    atomic_store(&num_wrong, 0);
    atomic_store(&number_of_thread, 0);
    atomic_store(&stopping, 0);
}

static void *use_context_of_own(void *unused)
{
    const int number = atomic_fetch_add(&number_of_thread, 1);
    for (int life = 0; life < 3; life++) {
        pageattn_context *context = create(1 + number % 3, number % 2 ? 20000 : 0, NULL);
        for (int i = 0; i < num_calls(60); i++)
            atomic_fetch_add(call_is_right(context) ? &num_right : &num_wrong, 1);
        pageattn_context_destroy(context);
    }
    return unused;
}

static void test_contexts_side_by_side(void)
{
    crew others;
    current_case = "16 threads, each with contexts of its own";
    reset_counts();
    start_crew(&others, MANY, use_context_of_own, NULL);
    join_crew(&others);
    if (atomic_load(&num_wrong) != 0)
        check_failed(current_case, "%d calls of %d failed or gave other bits",
                     atomic_load(&num_wrong), atomic_load(&num_wrong) + atomic_load(&num_right));
    else
        check_passed(current_case);
}

static void *use_context_of_all(void *context)
{
    for (int i = 0; i < num_calls(300); i++) {
        call mine;
        const pageattn_status status = make_call(context, &mine);
        if (status == PAGEATTN_OK && is_right(&mine))
            atomic_fetch_add(&num_right, 1);
        else if (status == PAGEATTN_ERROR_BUSY && is_untouched(&mine))
            atomic_fetch_add(&num_busy, 1);
        else
            atomic_fetch_add(&num_wrong, 1);
    }
    return NULL;
}

static void test_context_of_all(void)
{
    crew others;
    current_case = "8 threads on one context";
    reset_counts();
    pageattn_context *context = create(3, 20000, NULL);
    start_crew(&others, 8, use_context_of_all, context);
    join_crew(&others);
    printf("8 threads on one context: %d calls right, %d refused as busy\n",
           atomic_load(&num_right), atomic_load(&num_busy));
    if (atomic_load(&num_wrong) != 0)
        check_failed(current_case, "%d calls were neither right nor refused untouched",
                     atomic_load(&num_wrong));
    else
        check_that(atomic_load(&num_right) > 0 && call_is_right(context), current_case);
    pageattn_context_destroy(context);
}

/* ---- forks ---- */

#if defined(__SANITIZE_THREAD__)
/* gcc's ThreadSanitizer stops a child in which a new thread gets the id of one of the parent's. */
static const int child_may_start_threads = 0;
#else
static const int child_may_start_threads = 1;
#endif

enum { CHILD_RIGHT = 7, CHILD_WRONG = 8, CHILD_BUSY = 9 };

/* What the child of a fork can do with the parent's context and without. */
static int live_as_child(pageattn_context *inherited)
{
    call mine;
    int result = CHILD_RIGHT;
    const pageattn_status status = make_call(inherited, &mine);
    if (status == PAGEATTN_ERROR_BUSY)
        result = is_untouched(&mine) ? CHILD_BUSY : CHILD_WRONG;
    else if (status != PAGEATTN_OK || !is_right(&mine))
        result = CHILD_WRONG;
    pageattn_context_destroy(inherited);
    pageattn_context *own = create(3, 0, NULL);
    for (int i = 0; i < 5; i++)
        if (!call_is_right(own))
            result = CHILD_WRONG;
    pageattn_context_destroy(own);
    return result;
}

/* Returns how the child ended; -1 if it did so by a signal or hung. */
static int fork_and_wait(pageattn_context *context)
{
    fflush(stdout);
    const pid_t id = fork();
    if (id == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(HUNG_SECONDS / 2);
        _exit(live_as_child(context));
    }
    int status = 0;
    if (id < 0 || waitpid(id, &status, 0) != id || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

static void test_fork_of_idle_context(void)
{
    pid_t workers[3];
    for (int spins = 0; spins <= 1; spins++) {
        current_case = spins ? "fork beside spinning workers" : "fork beside sleeping workers";
        pageattn_context *context = create(4, spins ? 1000000000 : 0, NULL);
        const int before = call_is_right(context) && await_workers(workers, 3);
        const int child = fork_and_wait(context);
        const int after = call_is_right(context);
        if (child != CHILD_RIGHT || !before || !after)
            check_failed(current_case,
                         "the child ended with %d, the parent's calls were right: "
                         "%d %d",
                         child, before, after);
        else
            check_passed(current_case);
        pageattn_context_destroy(context);
    }
}

static void *call_until_stopped(void *context)
{
    while (!atomic_load(&stopping))
        atomic_fetch_add(call_is_right(context) ? &num_right : &num_wrong, 1);
    return NULL;
}

/* The child of a fork in the middle of a call inherits a context that is in use for ever. */
static void test_fork_during_calls(void)
{
    crew others;
    pid_t workers[2];
    int num_children[3] = {0}, num_lost = 0;
    current_case = "fork while another thread calls";
    reset_counts();
    pageattn_context *context = create(3, 0, NULL);
    start_crew(&others, 1, call_until_stopped, context);
    check_that(await_workers(workers, 2), "the workers of another thread's calls");
    for (int i = 0; i < num_calls(60); i++) {
        const int child = fork_and_wait(context);
        if (child == CHILD_RIGHT || child == CHILD_BUSY)
            num_children[child - CHILD_RIGHT]++;
        else
            num_lost++;
    }
    atomic_store(&stopping, 1);
    join_crew(&others);
    printf("fork while another thread calls: %d children used the context, %d found it busy\n",
           num_children[0], num_children[CHILD_BUSY - CHILD_RIGHT]);
    if (num_lost != 0 || atomic_load(&num_wrong) != 0)
        check_failed(current_case, "%d children lost, %d calls of the parent wrong", num_lost,
                     atomic_load(&num_wrong));
    else
        check_passed(current_case);
    pageattn_context_destroy(context);
}

/* ---- signals ---- */

static atomic_int num_signals;

static void count_signal(int number)
{
    (void)number;
    atomic_fetch_add(&num_signals, 1);
}

static void start_storm(int which, int signal)
{
    const struct sigaction action = {.sa_handler = count_signal}; /* no SA_RESTART */
    const struct itimerval often = {.it_interval.tv_usec = 100, .it_value.tv_usec = 100};
    sigaction(signal, &action, NULL);
    setitimer(which, &often, NULL);
}

static void end_storm(int which, int signal)
{
    const struct itimerval never = {.it_interval.tv_usec = 0};
    setitimer(which, &never, NULL);
    const struct sigaction action = {.sa_handler = SIG_IGN};
    sigaction(signal, &action, NULL);
}

static void test_signal_storm(int which, int signal, int num_wanted, const char *name)
{
    int right = 1, num_made = 0;
    current_case = name;
    atomic_store(&num_signals, 0);
    start_storm(which, signal);
    for (int life = 0; right && atomic_load(&num_signals) < num_wanted; life++) {
        pageattn_context *context = create(life % 4, life % 2 ? 20000 : 0, NULL);
        for (int i = 0; i < 20; i++, num_made++)
            right &= call_is_right(context);
        pageattn_context_destroy(context);
    }
    end_storm(which, signal);
    printf("%s: %d signals during %d calls\n", name, atomic_load(&num_signals), num_made);
    check_that(right, name);
}

/* ---- affinity ---- */

static void set_affinity_of_all_threads(const cpu_set_t *cpus)
{
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks != NULL && (entry = readdir(tasks)) != NULL;)
        if (entry->d_name[0] != '.')
            sched_setaffinity((pid_t)atoi(entry->d_name), sizeof(*cpus), cpus);
    if (tasks != NULL)
        closedir(tasks);
}

static void *change_affinity(void *arg)
{
    const cpu_set_t *all = arg;
    for (size_t turn = 0; !atomic_load(&stopping); turn++) {
        cpu_set_t one;
        size_t cpu = turn % CPU_SETSIZE;
        while (!CPU_ISSET(cpu, all))
            cpu = (cpu + 1) % CPU_SETSIZE;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        set_affinity_of_all_threads(turn % 3 == 2 ? all : &one);
        usleep(500);
    }
    return NULL;
}

/* A context keeps the number of threads that it was created with, wherever they may run. */
static void test_affinity_under_way(void)
{
    crew others;
    cpu_set_t all;
    int right = 1;
    current_case = "affinity changes under way";
    reset_counts();
    sched_getaffinity(0, sizeof(all), &all);
    start_crew(&others, 1, change_affinity, &all);
    for (int life = 0; life < num_calls(30); life++) {
        pageattn_context *context = create(life % 4, life % 2 ? 20000 : 0, NULL);
        const int32_t num_threads = pageattn_context_num_threads(context);
        for (int i = 0; i < 20; i++)
            right &= call_is_right(context);
        right &= pageattn_context_num_threads(context) == num_threads;
        pageattn_context_destroy(context);
    }
    atomic_store(&stopping, 1);
    join_crew(&others);
    set_affinity_of_all_threads(&all);
    check_that(right, current_case);
}

/* ---- executors ---- */

typedef struct one_task {
    pageattn_task task;
    void *arg;
    int64_t begin, end;
} one_task;

static void *run_range(void *opaque)
{
    const one_task *range = opaque;
    for (int64_t i = range->begin; i < range->end; i++)
        range->task(range->arg, i);
    return NULL;
}

static void run_inline(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    for (int64_t i = 0; i < num_tasks; i++)
        task(arg, i);
}

static void run_in_reverse(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    for (int64_t i = num_tasks; i-- > 0;)
        task(arg, i);
}

static void run_on_one_other(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    one_task all = {task, arg, 0, num_tasks};
    pthread_t thread;
    (void)opaque;
    if (pthread_create(&thread, NULL, run_range, &all) == 0)
        pthread_join(thread, NULL);
}

/* As often as `times` says, each time on a thread of its own. */
static void run_each_on_its_own(int64_t num_tasks, pageattn_task task, void *arg, int times)
{
    one_task ranges[MANY];
    pthread_t threads[MANY];
    int num_started = 0;
    for (; num_started < num_tasks * times && num_started < MANY; num_started++) {
        const int64_t index = num_started % num_tasks;
        ranges[num_started] = (one_task){task, arg, index, index + 1};
        if (pthread_create(&threads[num_started], NULL, run_range, &ranges[num_started]) != 0)
            break;
    }
    for (int i = 0; i < num_started; i++)
        pthread_join(threads[i], NULL);
}

static void run_on_many(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    run_each_on_its_own(num_tasks, task, arg, 1);
}

static void run_all_twice_at_once(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    run_each_on_its_own(num_tasks, task, arg, 2);
}

static void run_beyond(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    run_inline(opaque, num_tasks, task, arg);
    task(arg, -1);
    task(arg, INT64_MIN);
    task(arg, INT64_MAX);
}

/* Another call, on another context, from inside a task's thread. */
static void run_with_a_call_inside(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    for (int64_t i = 0; i < num_tasks; i++) {
        task(arg, i);
        if (!call_is_right(opaque))
            atomic_fetch_add(&num_wrong, 1);
    }
}

static void test_executor(const char *name,
                          void (*parallel_for)(void *, int64_t, pageattn_task, void *),
                          pageattn_status wanted)
{
    current_case = name;
    reset_counts();
    pageattn_context *other = create(2, 0, NULL);
    const pageattn_executor executor = {sizeof(executor), other, 5, parallel_for};
    pageattn_context *context = create(0, 0, &executor);
    for (int i = 0; i < num_calls(50); i++) {
        call mine;
        const pageattn_status status = make_call(context, &mine);
        if (status != wanted || (status == PAGEATTN_OK && !is_right(&mine)))
            atomic_fetch_add(&num_wrong, 1);
    }
    if (atomic_load(&num_wrong) != 0)
        check_failed(name, "%d calls were not \"%s\" or gave other bits", atomic_load(&num_wrong),
                     pageattn_status_name(wanted));
    else
        check_passed(name);
    pageattn_context_destroy(context);
    pageattn_context_destroy(other);
}

/* ---- workers that are held up ---- */

static int gate[2]; /* a pipe: who is held up reads from it */
static atomic_int num_held;

/* A worker blocks every signal that can be blocked for good; this one is raised by code. */
static void hold_up(int number)
{
    char byte;
    const int before = errno;
    (void)number;
    atomic_fetch_add(&num_held, 1);
    while (read(gate[0], &byte, 1) < 0 && errno == EINTR) {
    }
    errno = before;
}

static void let_go(void)
{
    while (write(gate[1], "", 1) < 0 && errno == EINTR) {
    }
}

static void hold_worker(pid_t id)
{
    const int before = atomic_load(&num_held);
    syscall(SYS_tgkill, getpid(), id, SIGTRAP);
    while (atomic_load(&num_held) == before)
        usleep(100);
}

/* All workers stand still before they have joined a call: the caller does the work alone, and so do
 * others. */
static void test_workers_held_while_idle(void)
{
    pid_t ids[2];
    int right = 1;
    current_case = "workers that stand still before a call";
    pageattn_context *context = create(3, 0, NULL), *other = create(1, 0, NULL);
    if (!check_that(call_is_right(context) && await_workers(ids, 2), "the workers are found")) {
        report_hung();
    }
    usleep(50000); /* they sleep by now; a worker held in a task would hold up its call */
    hold_worker(ids[0]);
    hold_worker(ids[1]);
    for (int i = 0; i < num_calls(100); i++)
        right &= call_is_right(context) && call_is_right(other);
    let_go();
    let_go();
    check_that(right, current_case);
    pageattn_context_destroy(context);
    pageattn_context_destroy(other);
}

/* Held within the thread sanitizer's own code, a worker waits forever for the lock it has there. */
#if defined(__SANITIZE_THREAD__)
#define WORKERS_RUN_SANITIZER_CODE 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WORKERS_RUN_SANITIZER_CODE 1
#endif
#endif

/* Held at any moment, also in the middle of a task: the call ends once the worker goes on, and
 * other contexts' calls end meanwhile. */
static void test_workers_held_while_busy(void)
{
#ifdef WORKERS_RUN_SANITIZER_CODE
    printf("not under the thread sanitizer: a worker that stands still in the middle of calls\n");
#else
    crew others;
    pid_t id;
    int right = 1;
    current_case = "a worker that stands still in the middle of calls";
    reset_counts();
    pageattn_context *context = create(2, 0, NULL);
    if (!check_that(call_is_right(context) && await_workers(&id, 1), "the worker is found"))
        report_hung();
    pageattn_context *other = create(1, 0, NULL);
    start_crew(&others, 1, call_until_stopped, context);
    /* On a busy machine the others' first call may come late. */
    for (int i = 0; i < num_calls(60) || (atomic_load(&num_right) == 0 && i < 10000); i++) {
        hold_worker(id);
        right &= call_is_right(other);
        let_go();
        usleep((useconds_t)(i * 7 % 300));
    }
    atomic_store(&stopping, 1);
    join_crew(&others);
    if (!right || atomic_load(&num_wrong) != 0)
        check_failed(current_case, "calls that failed or gave other bits: %d here, %d there",
                     !right, atomic_load(&num_wrong));
    else
        check_that(atomic_load(&num_right) > 0, current_case);
    pageattn_context_destroy(context);
    pageattn_context_destroy(other);
#endif
}

/* A whole process that is stopped and goes on, again and again, finds its calls as they were. */
static void test_stopped_process(void)
{
    current_case = "a process that is stopped and goes on";
    fflush(stdout);
    const pid_t id = fork();
    if (id == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(HUNG_SECONDS / 2);
        pageattn_context *context = create(3, 20000, NULL);
        int right = 1;
        for (int i = 0; i < num_calls(2000); i++)
            right &= call_is_right(context);
        pageattn_context_destroy(context);
        _exit(right ? CHILD_RIGHT : CHILD_WRONG);
    }
    int status = 0, num_stops = 0;
    while (id > 0 && waitpid(id, &status, WNOHANG) == 0) {
        kill(id, SIGSTOP);
        usleep(3000);
        kill(id, SIGCONT);
        usleep(3000);
        num_stops++;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != CHILD_RIGHT)
        check_failed(current_case, "its wait status is 0x%x", (unsigned int)status);
    else
        check_that(num_stops > 0, current_case);
}

static void test_held_workers(void)
{
    const struct sigaction action = {.sa_handler = hold_up};
    if (pipe(gate) != 0) {
        check_failed("held workers", "no pipe");
        return;
    }
    sigaction(SIGTRAP, &action, NULL);
    test_workers_held_while_idle();
    test_workers_held_while_busy();
    close(gate[0]);
    close(gate[1]);
}

int main(int argc, char **argv)
{
    pthread_t watcher;
    check_start(argc, argv);
    name_crashes();
    build_inputs();
    if (child_may_start_threads) {
        test_fork_of_idle_context();
        test_fork_during_calls();
        test_stopped_process();
    }
    atomic_store(&watching, 1);
    if (pthread_create(&watcher, NULL, watch, NULL) != 0)
        check_failed("the watcher", "no thread");
    test_contexts_side_by_side();
    test_context_of_all();
    test_signal_storm(ITIMER_REAL, SIGALRM, num_calls(5000), "a storm of SIGALRM");
    test_signal_storm(ITIMER_PROF, SIGPROF, num_calls(100), "a storm of SIGPROF");
    test_affinity_under_way();
    test_executor("tasks one after the other", run_inline, PAGEATTN_OK);
    test_executor("tasks in reverse", run_in_reverse, PAGEATTN_OK);
    test_executor("tasks on one other thread", run_on_one_other, PAGEATTN_OK);
    test_executor("tasks on a thread each", run_on_many, PAGEATTN_OK);
    test_executor("calls between tasks", run_with_a_call_inside, PAGEATTN_OK);
    test_executor("tasks twice at the same time", run_all_twice_at_once, PAGEATTN_ERROR_EXECUTOR);
    test_executor("tasks out of range", run_beyond, PAGEATTN_ERROR_EXECUTOR);
    test_held_workers();
    atomic_store(&watching, 0);
    pthread_join(watcher, NULL);
    paged_free(&shared);
    logical_free(&logical);
    return check_finish();
}

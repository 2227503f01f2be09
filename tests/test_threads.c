/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts among threads, forks and signals: every call ends, with the bits of a quiet single
 * thread, or with a status that says why not. A hang counts as a failure.
 */
#define _GNU_SOURCE

#include <dirent.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "hang_watch.h"
#include "shared_call.h"
#include "thread_sanitizer.h"
#include "workers.h"

/* ---- many contexts, and one for many ---- */

static atomic_int number_of_thread;

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
    start_crew(&others, MAX_CREW, use_context_of_own, NULL);
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

int main(int argc, char **argv)
{
    check_start(argc, argv);
    name_crashes();
    build_inputs();
    if (CHILD_MAY_START_THREADS) {
        test_fork_of_idle_context();
        test_fork_during_calls();
    }
    start_watch();
    test_contexts_side_by_side();
    test_context_of_all();
    test_signal_storm(ITIMER_REAL, SIGALRM, num_calls(5000), "a storm of SIGALRM");
    test_signal_storm(ITIMER_PROF, SIGPROF, num_calls(100), "a storm of SIGPROF");
    test_affinity_under_way();
    end_watch();
    paged_free(&shared);
    logical_free(&logical);
    return check_finish();
}

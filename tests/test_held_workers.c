/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers and processes that stand still: who does not need them is not held up, and the others go
 * on when they do.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "hang_watch.h"
#include "shared_call.h"
#include "thread_sanitizer.h"
#include "workers.h"

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

/* Held at any moment, also in the middle of a task: the call ends once the worker goes on, and
 * other contexts' calls end meanwhile. */
static void test_workers_held_while_busy(void)
{
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
        _exit(right ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    int status = 0, num_stops = 0;
    while (id > 0 && waitpid(id, &status, WNOHANG) == 0) {
        kill(id, SIGSTOP);
        usleep(3000);
        kill(id, SIGCONT);
        usleep(3000);
        num_stops++;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SUCCESS)
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
    if (UNDER_THREAD_SANITIZER) /* a worker may be held with a lock of the sanitizer's */
        printf("not under the thread sanitizer: a worker that stands still in a call\n");
    else
        test_workers_held_while_busy();
    close(gate[0]);
    close(gate[1]);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    name_crashes();
    build_inputs();
    if (CHILD_MAY_START_THREADS)
        test_stopped_process();
    start_watch();
    test_held_workers();
    end_watch();
    paged_free(&shared);
    logical_free(&logical);
    return check_finish();
}

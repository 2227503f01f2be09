/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ends a test program that hangs, and names the case. The includer defines _DEFAULT_SOURCE first,
 * for usleep.
 */
#ifndef HANG_WATCH_H
#define HANG_WATCH_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "paged_case.h"

enum { HUNG_SECONDS = 120 };

static inline void report_hung(void)
{
    const char *const parts[] = {"FAILED ", current_case, ": hung\n"};
    for (int i = 0; i < 3; i++)
        if (write(STDOUT_FILENO, parts[i], strlen(parts[i])) < 0)
            break;
    _exit(1);
}

static atomic_int watching;

/* A thread, since alarms belong to what is tested. */
static inline void *watch(void *unused)
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

static pthread_t watcher;

static inline void start_watch(void)
{
    atomic_store(&watching, 1);
    if (pthread_create(&watcher, NULL, watch, NULL) == 0)
        return;
    check_failed("the watcher", "no thread");
    exit(check_finish());
}

static inline void end_watch(void)
{
    atomic_store(&watching, 0);
    pthread_join(watcher, NULL);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library's own threads in this process, found by their name. The includer defines
 * _DEFAULT_SOURCE first, for usleep.
 */
#ifndef WORKERS_H
#define WORKERS_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* The ids of at most `most` threads that have named themselves; returns their number. */
static inline int find_workers(pid_t *ids, int most)
{
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks != NULL && (entry = readdir(tasks)) != NULL;) {
        char path[300], name[32] = "";
        snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL)
            continue;
        if (fgets(name, sizeof(name), file) != NULL && strcmp(name, "pageattn\n") == 0 &&
            count < most)
            ids[count++] = (pid_t)atoi(entry->d_name);
        fclose(file);
    }
    if (tasks != NULL)
        closedir(tasks);
    return count;
}

/* Threads are created by the first call that needs them, which does not wait for them: they name
 * themselves when the system lets them run. Finds `wanted` of them, or gives up and returns 0.
 *
 * Whoever forks waits for this first. A sanitizer's runtime holds locks of its own while a thread
 * starts; a child that is born meanwhile finds them locked for ever, and its first new thread
 * hangs. */
static inline int await_workers(pid_t *ids, int wanted)
{
    for (int i = 0; i < 20000; i++) {
        if (find_workers(ids, wanted) == wanted)
            return 1;
        usleep(1000);
    }
    return 0;
}

#endif

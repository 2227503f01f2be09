/* SPDX-License-Identifier: Apache-2.0 */
/* Work on a context's own threads: the limits run on the same threads as the call. */
#ifndef CLI_CREW_H
#define CLI_CREW_H

#include <stdbool.h>

#include <pageattn/pageattn.h>

/* Runs task(arg, i) for each i in [0, num_tasks); says why it could not. */
bool cli_crew_run(pageattn_context *context, int64_t num_tasks, pageattn_task task, void *arg);

/* How many workers a call gets that reads so many bytes. */
int64_t cli_crew_workers(const pageattn_context *context, int64_t bytes);

#endif

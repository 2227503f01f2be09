/* SPDX-License-Identifier: Apache-2.0 */
#include "crew.h"

#include "context.h"
#include "say.h"

bool cli_crew_run(pageattn_context *context, int64_t num_tasks, pageattn_task task, void *arg)
{
    pageattn_error error;
    if (num_tasks == 1) {
        task(arg, 0);
        return true;
    }
    if (pageattn_pool_parallel_for(context->pool, num_tasks, task, arg, &error) == PAGEATTN_OK)
        return true;
    cli_say("%s", error.message);
    return false;
}

int64_t cli_crew_workers(const pageattn_context *context, int64_t bytes)
{
    const int64_t worth = bytes / context->min_bytes_per_worker;
    return worth < 1 ? 1 : worth < context->num_workers ? worth : context->num_workers;
}

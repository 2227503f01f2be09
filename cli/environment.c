/* SPDX-License-Identifier: Apache-2.0 */
#include "environment.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <pageattn/pageattn.h>

#include "commit.h" /* CLI_COMMIT; made at each build */
#include "executor.h"

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

static const char *limit_of_threads(const cli_environment *environment)
{
    const cli_machine *machine = &environment->machine;
    const int32_t threads = environment->usable_threads;
    if (threads == machine->affinity_cpus)
        return "the CPUs that this process may run on";
    if (threads == machine->cgroup_cpus)
        return "the CPU quota of the control group, rounded up";
    return threads == PAGEATTN_MAX_THREADS ? "the most that pageattn supports"
                                           : "PAGEATTN_NUM_THREADS";
}

void cli_environment_read(cli_environment *environment)
{
    cli_machine_read(&environment->machine);
    environment->version = pageattn_version();
    environment->commit = CLI_COMMIT;
    environment->compiler = COMPILER;
    environment->usable_threads = pageattn_usable_threads();
    environment->limited_by = limit_of_threads(environment);
}

char *cli_caches_text(const cli_machine *machine, char text[160])
{
    char size[24];
    size_t used = 0;
    snprintf(text, 160, "unknown");
    for (int i = 0; i < machine->num_caches && used < 120; i++) {
        const cli_cache *cache = &machine->cache[i];
        if (strcmp(cache->type, "Instruction") == 0)
            continue;
        used += (size_t)snprintf(text + used, 160 - used, "%s%s L%d", used ? ", " : "",
                                 cli_size_text(cache->bytes, size), cache->level);
        if (cache->num_cpus > 1)
            used += (size_t)snprintf(text + used, 160 - used, " (for %" PRId64 " CPUs)",
                                     cache->num_cpus);
    }
    return text;
}

char *cli_quota_text(const cli_machine *machine, char text[32])
{
    if (machine->cgroup_cpus == INT32_MAX)
        snprintf(text, 32, "no quota");
    else
        snprintf(text, 32, "%" PRId32 " CPUs", machine->cgroup_cpus);
    return text;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* pageattn info: what this build is, what this machine is, and what the library makes of both. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "environment.h"
#include "kernel/kernels.h"
#include "limit_loops.h"
#include "say.h"

static void print_isas(void)
{
#define ISA(name, NAME, requirement)                                                               \
    printf("  %-8s %s\n", #name,                                                                   \
           cli_limit_loops_built(PAGEATTN_ISA_##NAME) == NULL ? "not in this build"                \
           : pageattn_isa_available(PAGEATTN_ISA_##NAME)      ? "compiled in, available"           \
                                                              : "compiled in, not on this CPU");
#include "isa/isa.def"
#undef ISA
}

static void print_chosen_isa(const pageattn_context *context)
{
    const char *wish = getenv("PAGEATTN_ISA");
    const bool wished = wish != NULL && *wish != '\0' && strcmp(wish, "auto") != 0;
    printf("  chosen: %s, %s\n", pageattn_isa_name(pageattn_context_isa(context)),
           wished ? "because PAGEATTN_ISA says so" : "the best that is available");
    printf("  prefetches into %s\n",
           pageattn_best_prefetch(pageattn_context_isa(context)) == PAGEATTN_PREFETCH_L1
               ? "L1, which suits this CPU"
               : "L2, then L1");
    printf("  fast numerics on it: %s\n",
           pageattn_context_has_fast(context, PAGEATTN_BF16) ? "for bf16 keys and values" : "none");
}

static void print_threads(const cli_environment *environment)
{
    char quota[32];
    const char *wish = getenv("PAGEATTN_NUM_THREADS");
    printf("threads: %" PRId32 ", from %s\n", environment->usable_threads, environment->limited_by);
    printf("  CPUs that this process may run on  %" PRId32 "\n",
           environment->machine.affinity_cpus);
    printf("  CPU quota of the control group     %s\n",
           cli_quota_text(&environment->machine, quota));
    printf("  PAGEATTN_NUM_THREADS               %.40s\n",
           wish != NULL && *wish != '\0' ? wish : "not set");
}

static void print_environment(const cli_environment *environment)
{
    const cli_machine *machine = &environment->machine;
    char caches[160];
    printf("pageattn %s, commit %s, %s\n", environment->version, environment->commit,
           environment->compiler);
    printf("CPU: %s", machine->cpu[0] ? machine->cpu : "unknown");
    if (machine->mhz > 0)
        printf(" at %.0f MHz", machine->mhz);
    printf("\ncaches: %s\n", cli_caches_text(machine, caches));
    printf("transparent huge pages: %s\n",
           machine->huge_pages[0] ? machine->huge_pages : "unknown");
}

int cli_info(int num_arguments, char **arguments)
{
    cli_environment environment;
    pageattn_context *context;
    pageattn_error error;
    if (num_arguments > 0 && strcmp(arguments[0], "--help") == 0) {
        printf("usage: pageattn info\n\nPrints version, CPU, caches, instruction sets and threads, "
               "and "
               "why these were chosen.\n");
        return 0;
    }
    if (num_arguments > 0) {
        cli_say("info takes no arguments, but got %.60s", arguments[0]);
        return CLI_USAGE;
    }
    cli_environment_read(&environment);
    print_environment(&environment);
    printf("instruction sets:\n");
    print_isas();
    const bool created = pageattn_context_create(NULL, &context, &error) == PAGEATTN_OK;
    if (created)
        print_chosen_isa(context);
    else
        cli_say("%s", error.message);
    pageattn_context_destroy(context);
    print_threads(&environment);
    return created ? 0 : CLI_FAILED;
}

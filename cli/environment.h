/* SPDX-License-Identifier: Apache-2.0 */
/* Where and how a benchmark ran: what someone needs to judge its figures. */
#ifndef CLI_ENVIRONMENT_H
#define CLI_ENVIRONMENT_H

#include "machine.h"

typedef struct cli_environment {
    cli_machine machine;
    const char *version;
    const char *commit; /* of the source, with "-dirty" if it was changed since; "unknown" */
    const char *compiler;
    int32_t usable_threads;
    const char *limited_by; /* what usable_threads comes from */
} cli_environment;

void cli_environment_read(cli_environment *environment);

/* "32 KiB L1, 1.0 MiB L2, 32.0 MiB L3": data caches, and how many CPUs share each, if several. */
char *cli_caches_text(const cli_machine *machine, char text[160]);

/* "2 CPUs", "no quota". */
char *cli_quota_text(const cli_machine *machine, char text[32]);

#endif

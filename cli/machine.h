/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine says of itself. Everything that can't be read is left empty or 0. */
#ifndef CLI_MACHINE_H
#define CLI_MACHINE_H

#include <stdint.h>

#define CLI_MAX_CACHES 8

typedef struct cli_cache {
    int level;
    char type[16]; /* Data, Instruction, Unified */
    int64_t bytes;
    int64_t num_cpus; /* that share it */
} cli_cache;

typedef struct cli_machine {
    char cpu[128];
    double mhz;
    int num_caches;
    cli_cache cache[CLI_MAX_CACHES];
    char huge_pages[16]; /* always, madvise or never */
    int32_t affinity_cpus;
    int32_t cgroup_cpus; /* INT32_MAX: no quota */
    double load;         /* the average of the last minute; -1 if unknown */
} cli_machine;

void cli_machine_read(cli_machine *machine);

/* Bytes that this process may still use, by the kernel's estimate and its control group's limit;
 * INT64_MAX if unknown. */
int64_t cli_machine_available_bytes(void);

/* The innermost place that holds `bytes` when num_threads CPUs share the work: "L1", "L2", "L3",
 * ..., or "mem". */
const char *cli_machine_level(const cli_machine *machine, int64_t bytes, int32_t num_threads);

/* "1.5 MiB"; returns text. */
char *cli_size_text(int64_t bytes, char text[24]);

#endif

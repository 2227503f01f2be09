/* SPDX-License-Identifier: Apache-2.0 */
/* What pageattn_usable_threads takes the smallest of. */
#ifndef PAGEATTN_USABLE_THREADS_H
#define PAGEATTN_USABLE_THREADS_H

#include <stdint.h>

/* How many CPUs the calling thread may run on. At least 1. */
int32_t pageattn_affinity_cpus(void);

/* The CPU quota of this process's control group and of those above it, in whole CPUs, rounded up;
 * INT32_MAX if there is none. The files are looked for below `root`, which is "" but in tests. */
int32_t pageattn_cgroup_cpus(const char *root);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the C test programs share: counting and naming cases, and random numbers.
 *
 *     int main(int argc, char **argv)
 *     {
 *         check_start(argc, argv);
 *         if (two() == 2)
 *             check_passed("two");
 *         else
 *             check_failed("two", "got %d", two());
 *         return check_finish();
 *     }
 *
 * A program prints a line `FAILED <case>: why` for each failure, `ok <case>` only with -v, and ends
 * with `N passed, N failed`. `-s SEED` sets the seed. One thread only calls these functions.
 */
#ifndef CHECK_H
#define CHECK_H

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct check_state {
    long num_passed;
    long num_failed;
    int verbose;
    uint64_t seed; /* 1 unless -s says otherwise; printed by check_start */
} check_state;

static check_state check;

static inline void check_start(int argc, char **argv)
{
    check.seed = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-v") == 0) {
            check.verbose = 1;
        } else if (strcmp(argv[i], "-s") == 0 && i + 1 < argc) {
            check.seed = strtoull(argv[++i], NULL, 0);
        } else {
            fprintf(stderr, "usage: %s [-v] [-s seed]\n", argv[0]);
            exit(2);
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0); /* a crash must not lose the lines before it */
    printf("seed %llu\n", (unsigned long long)check.seed);
}

/* Prints what went well, and returns the exit status. A program that checked nothing has failed. */
static inline int check_finish(void)
{
    printf("%ld passed, %ld failed\n", check.num_passed, check.num_failed);
    return check.num_failed == 0 && check.num_passed > 0 ? 0 : 1;
}

static inline void check_passed(const char *name)
{
    check.num_passed++;
    if (check.verbose)
        printf("ok %s\n", name);
}

__attribute__((format(printf, 2, 3))) static inline void check_failed(const char *name,
                                                                      const char *why, ...)
{
    va_list values;
    va_start(values, why);
    check.num_failed++;
    printf("FAILED %s: ", name);
    vprintf(why, values);
    printf("\n");
    va_end(values);
}

/* One case whose whole story is a condition. Returns the condition. */
static inline int check_that(int condition, const char *name)
{
    if (condition)
        check_passed(name);
    else
        check_failed(name, "not so");
    return condition;
}

/* Memory that the test cannot go on without. */
static inline void *check_allocate(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (memory == NULL) {
        printf("FAILED out of memory: %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

/* splitmix64 (Steele, Lea, Flood 2014): any seed is a good one. `random` holds the state. */
static inline uint64_t check_random(uint64_t *random)
{
    uint64_t z = (*random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In [low, high], both included; the bias of the remainder does not matter to a test. */
static inline int64_t check_random_int(uint64_t *random, int64_t low, int64_t high)
{
    return low + (int64_t)(check_random(random) % (uint64_t)(high - low + 1));
}

/* In [0, 1). */
static inline double check_random_unit(uint64_t *random)
{
    return (double)(check_random(random) >> 11) * 0x1p-53;
}

/* Mean 0, variance 1 (Box and Muller). */
static inline double check_random_normal(uint64_t *random)
{
    double radius = sqrt(-2 * log(1 - check_random_unit(random)));
    return radius * cos(6.283185307179586 * check_random_unit(random));
}

/* A random order of 0 .. count - 1 (Fisher and Yates). */
static inline void check_random_permutation(uint64_t *random, int32_t *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t j = check_random_int(random, 0, i);
        values[i] = values[j];
        values[j] = (int32_t)i;
    }
}

#endif

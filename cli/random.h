/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers that are the same on every machine. */
#ifndef CLI_RANDOM_H
#define CLI_RANDOM_H

#include <stdint.h>

/* splitmix64 (Steele, Lea, Flood 2014): any seed is a good one. `random` holds the state. */
static inline uint64_t cli_random(uint64_t *random)
{
    uint64_t z = (*random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In [0, bound); the bias of the remainder does not matter here. */
static inline int64_t cli_random_below(uint64_t *random, int64_t bound)
{
    return (int64_t)(cli_random(random) % (uint64_t)bound);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of one execution, taken as choices. When they run out every choice is its first, so any
 * input means something, and a short one means something simple.
 */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct fuzz_input {
    const uint8_t *at;
    const uint8_t *end;
} fuzz_input;

static inline uint64_t fuzz_byte(fuzz_input *input)
{
    return input->at < input->end ? *input->at++ : 0;
}

/* Any number of 16 bits: seeds, of which there are enough. */
static inline uint64_t fuzz_seed(fuzz_input *input)
{
    const uint64_t low = fuzz_byte(input);
    return fuzz_byte(input) << 8 | low;
}

/* In [low, high], both included; high - low < 65536. */
static inline int64_t fuzz_int(fuzz_input *input, int64_t low, int64_t high)
{
    const uint64_t count = (uint64_t)(high - low) + 1;
    return low + (int64_t)((count <= 256 ? fuzz_byte(input) : fuzz_seed(input)) % count);
}

/* Ends the execution as a crash, which libFuzzer reports with the input. */
#define FUZZ_REQUIRE(condition, ...)                                                               \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "FAILED %s: ", #condition);                                            \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* What libFuzzer calls. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t num_bytes);

#endif

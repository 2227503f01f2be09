/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an instruction set's lanes_*.h and the functions over it do, as tables of plain functions on
 * arrays, so that a test can run several instruction sets side by side. vocabulary_<isa>.c makes
 * one table, compiled with that instruction set's flags.
 */
#ifndef VOCABULARY_H
#define VOCABULARY_H

#include <stdlib.h>
#include <string.h>

#include <pageattn/pageattn.h>

/* One row an operation on up to four lane groups. A float result fills all lanes. */
#define VOCABULARY_OPERATIONS(OPERATION)                                                           \
    OPERATION(exp, lanes_exp(a))                                                                   \
    OPERATION(tanh, lanes_tanh(a))                                                                 \
    OPERATION(log, lanes_log(a))                                                                   \
    OPERATION(zero, lanes_zero())                                                                  \
    OPERATION(add, lanes_add(a, b))                                                                \
    OPERATION(sub, lanes_sub(a, b))                                                                \
    OPERATION(mul, lanes_mul(a, b))                                                                \
    OPERATION(div, lanes_div(a, b))                                                                \
    OPERATION(fma, lanes_fma(a, b, c))                                                             \
    OPERATION(max, lanes_max(a, b))                                                                \
    OPERATION(rint, lanes_rint(a))                                                                 \
    OPERATION(abs, lanes_abs(a))                                                                   \
    OPERATION(copysign, lanes_copysign(a, b))                                                      \
    OPERATION(where_less, lanes_where_less(a, b, c, d))                                            \
    OPERATION(canonical_nan, lanes_canonical_nan(a))                                               \
    OPERATION(zero_or_scale, lanes_zero_or_scale(a, b, c, d))                                      \
    OPERATION(exponent, lanes_exponent(a))                                                         \
    OPERATION(mantissa, lanes_mantissa(a))                                                         \
    OPERATION(fold_8_4, lanes_fold_8_4(a, b, c, d))                                                \
    OPERATION(fold_2_1, lanes_fold_2_1(a, b, c, d))                                                \
    OPERATION(first, lanes_all(lanes_first(a)))                                                    \
    OPERATION(reduce_max, lanes_all(lanes_reduce_max(a)))

#define VOCABULARY_NAME(name, expression) OPERATION_##name,
enum { VOCABULARY_OPERATIONS(VOCABULARY_NAME) NUM_OPERATIONS };
#undef VOCABULARY_NAME

/* The types that are loaded and stored. */
#define VOCABULARY_TYPES(TYPE) TYPE(f32) TYPE(bf16) TYPE(f16)

#define VOCABULARY_NAME(type) TYPE_##type,
enum { VOCABULARY_TYPES(VOCABULARY_NAME) NUM_TYPES };
#undef VOCABULARY_NAME

typedef struct vocabulary {
    /* `count`, a multiple of 16, elements of operands[0] to [3], all of which must be readable. */
    void (*operation[NUM_OPERATIONS])(const float *const operands[4], float *result, int64_t count);
    void (*load[NUM_TYPES])(const void *p, float result[16]);
    void (*load_two_bf16)(const void *p, float result[32]);
    void (*load_two_bf16_unordered)(const void *p, float result[32]); /* and put in order */
    void (*load_first[NUM_TYPES])(const void *p, int64_t n, float result[16]);
    void (*store_first[NUM_TYPES])(void *p, const float x[16], int64_t n);
} vocabulary;

/* Absent from builds for other processors: their address is then NULL. */
#define ISA(name, NAME, requirement)                                                               \
    extern const vocabulary vocabulary_##name __attribute__((weak));
#include "isa/isa.def"
#undef ISA

typedef struct vocabulary_isa {
    const char *name;
    pageattn_isa isa;
    const vocabulary *functions;
} vocabulary_isa;

static const vocabulary_isa vocabulary_isas[] = {
#define ISA(name, NAME, requirement) {#name, PAGEATTN_ISA_##NAME, &vocabulary_##name},
#include "isa/isa.def"
#undef ISA
};

enum { NUM_ISAS = sizeof vocabulary_isas / sizeof vocabulary_isas[0] };

/* The tables that this CPU can run, best last; with PAGEATTN_ISA in the environment the scalar one,
 * which defines the others, and that one only. Returns how many. */
static inline int vocabulary_available(const vocabulary_isa *available[NUM_ISAS])
{
    const char *only = getenv("PAGEATTN_ISA");
    int num_available = 0;
    for (int i = 0; i < NUM_ISAS; i++)
        if (pageattn_isa_available(vocabulary_isas[i].isa) &&
            (i == 0 || only == NULL || strcmp(only, vocabulary_isas[i].name) == 0))
            available[num_available++] = &vocabulary_isas[i];
    return num_available;
}

#endif

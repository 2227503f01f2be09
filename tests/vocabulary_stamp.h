/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stamps the functions of one instruction set into its table. The file that includes this has
 * included the lanes_<isa>.h before, and has defined VOCABULARY to the table's name.
 */
#include "kernel/exp.h"
#include "kernel/tanh.h"
#include "kernel/log.h"
#include "vocabulary.h"

#define OPERATION(name, expression)                                                                \
    static void operation_##name(const float *const operands[4], float *result, int64_t count)     \
    {                                                                                              \
        for (int64_t i = 0; i < count; i += 16) {                                                  \
            const lanes a = lanes_load_f32(operands[0] + i);                                       \
            const lanes b = lanes_load_f32(operands[1] + i);                                       \
            const lanes c = lanes_load_f32(operands[2] + i);                                       \
            const lanes d = lanes_load_f32(operands[3] + i);                                       \
            (void)a, (void)b, (void)c, (void)d;                                                    \
            lanes_store_f32(result + i, expression);                                               \
        }                                                                                          \
    }
VOCABULARY_OPERATIONS(OPERATION)
#undef OPERATION

#define TYPE(type)                                                                                 \
    static void load_##type(const void *p, float result[16])                                       \
    {                                                                                              \
        lanes_store_f32(result, lanes_load_##type(p));                                             \
    }                                                                                              \
    static void load_first_##type(const void *p, int64_t n, float result[16])                      \
    {                                                                                              \
        lanes_store_f32(result, lanes_load_first_##type(p, n));                                    \
    }                                                                                              \
    static void store_first_##type(void *p, const float x[16], int64_t n)                          \
    {                                                                                              \
        lanes_store_first_##type(p, lanes_load_f32(x), n);                                         \
    }
VOCABULARY_TYPES(TYPE)
#undef TYPE

static void load_two_bf16_unordered(const void *p, float result[32])
{
    lanes first, second;
    lanes_load_two_bf16_unordered(p, &first, &second);
    lanes_put_in_order(&first, &second);
    lanes_store_f32(result, first);
    lanes_store_f32(result + 16, second);
}

static void load_two_bf16(const void *p, float result[32])
{
    lanes first, second;
    lanes_load_two_bf16(p, &first, &second);
    lanes_store_f32(result, first);
    lanes_store_f32(result + 16, second);
}

const vocabulary VOCABULARY = {
#define OPERATION(name, expression) .operation[OPERATION_##name] = operation_##name,
    VOCABULARY_OPERATIONS(OPERATION)
#undef OPERATION
#define TYPE(type)                                                                                 \
    .load[TYPE_##type] = load_##type, .load_first[TYPE_##type] = load_first_##type,                \
    .store_first[TYPE_##type] = store_first_##type,
        VOCABULARY_TYPES(TYPE)
#undef TYPE
            .load_two_bf16 = load_two_bf16,
    .load_two_bf16_unordered = load_two_bf16_unordered,
};

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elements of any type as lane groups. `type` is always a constant of the caller, who was stamped
 * for it: the switches fold away.
 */
#ifndef PAGEATTN_KERNEL_ELEMENTS_H
#define PAGEATTN_KERNEL_ELEMENTS_H

#include "compiler.h"
#include "kernels.h"

KERNEL_INLINE int64_t element_bytes(pageattn_type type)
{
    switch (type) {
#define KV_TYPE(name, NAME, bytes)                                                                 \
    case PAGEATTN_##NAME:                                                                          \
        return bytes;
#include "kv_types.def"
#undef KV_TYPE
    default:
        __builtin_unreachable();
    }
}

/* 16 elements. */
KERNEL_INLINE lanes load_group(pageattn_type type, const void *p)
{
    switch (type) {
#define KV_TYPE(name, NAME, bytes)                                                                 \
    case PAGEATTN_##NAME:                                                                          \
        return lanes_load_##name(p);
#include "kv_types.def"
#undef KV_TYPE
    default:
        __builtin_unreachable();
    }
}

/* The lane groups of a cache line's worth of elements: line_groups of them, at most
 * LINE_MAX_GROUPS. */
#define LINE_BYTES 64
#define LINE_MAX_GROUPS 2

KERNEL_INLINE int line_groups(pageattn_type type)
{
    return (int)(LINE_BYTES / (PAGEATTN_LANES * element_bytes(type)));
}

KERNEL_INLINE void load_line(pageattn_type type, const void *p, lanes group[])
{
    if (type == PAGEATTN_BF16) {
        lanes_load_two_bf16(p, &group[0], &group[1]);
        return;
    }
    KERNEL_UNROLL
    for (int g = 0; g < line_groups(type); g++)
        group[g] = load_group(type, (const char *)p + g * PAGEATTN_LANES * element_bytes(type));
}

/* The first n elements, 1 <= n <= 16, and zeros. */
KERNEL_INLINE lanes load_first(pageattn_type type, const void *p, int64_t n)
{
    switch (type) {
#define KV_TYPE(name, NAME, bytes)                                                                 \
    case PAGEATTN_##NAME:                                                                          \
        return lanes_load_first_##name(p, n);
#include "kv_types.def"
#undef KV_TYPE
    default:
        __builtin_unreachable();
    }
}

#ifdef LANES_FEW_REGISTERS
/* 8 elements. */
KERNEL_INLINE half_lanes load_half_group(pageattn_type type, const void *p)
{
    switch (type) {
#define KV_TYPE(name, NAME, bytes)                                                                 \
    case PAGEATTN_##NAME:                                                                          \
        return half_lanes_load_##name(p);
#include "kv_types.def"
#undef KV_TYPE
    default:
        __builtin_unreachable();
    }
}
#endif

KERNEL_INLINE void store_first(pageattn_type type, void *p, lanes x, int64_t n)
{
    switch (type) {
#define KV_TYPE(name, NAME, bytes)                                                                 \
    case PAGEATTN_##NAME:                                                                          \
        lanes_store_first_##name(p, x, n);                                                         \
        return;
#include "kv_types.def"
#undef KV_TYPE
    default:
        __builtin_unreachable();
    }
}

#endif

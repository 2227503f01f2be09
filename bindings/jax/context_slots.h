/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts kept between calls. A context serves one call at a time, and XLA runs as many calls at
 * once as its programs allow, so each call takes a context and puts it back.
 */
#ifndef PAGEATTN_BINDINGS_JAX_CONTEXT_SLOTS_H
#define PAGEATTN_BINDINGS_JAX_CONTEXT_SLOTS_H

#include <stdatomic.h>

#include "executor.h"

typedef struct pageattn_jax_slot {
    _Atomic int taken; /* who sets it from 0 to 1 owns everything else */
    pageattn_context *context;
    pageattn_isa isa;
    int32_t num_workers;
    pageattn_jax_pool pool; /* where the context's work goes: the owner sets it for its call */
} pageattn_jax_slot;

/* A slot with a context of this instruction set and number of workers, which run on `pool`. Where
 * every kept slot is taken it is `spare`, whose context lasts for one call. NULL: see `error`. */
pageattn_jax_slot *pageattn_jax_slot_take(pageattn_isa isa, int32_t num_workers,
                                          const pageattn_jax_pool *pool, pageattn_jax_slot *spare,
                                          pageattn_error *error);
void pageattn_jax_slot_give_back(pageattn_jax_slot *slot, const pageattn_jax_slot *spare);

#endif

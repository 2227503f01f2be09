/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slots are the one thing that this library keeps: a fixed array without a lock. They live
 * until the process ends, as the handlers that XLA knows do.
 */
#include "context_slots.h"

#include <stddef.h>

#define NUM_SLOTS 16

static pageattn_jax_slot slots[NUM_SLOTS];

enum preference { SAME_KIND, EMPTY, ANY, NUM_PREFERENCES };

static int suits(const pageattn_jax_slot *slot, enum preference preference, pageattn_isa isa,
                 int32_t num_workers)
{
    if (preference == SAME_KIND)
        return slot->context != NULL && slot->isa == isa && slot->num_workers == num_workers;
    return preference == ANY || slot->context == NULL;
}

static int try_to_take(pageattn_jax_slot *slot)
{
    return atomic_exchange_explicit(&slot->taken, 1, memory_order_acquire) == 0;
}

static void release(pageattn_jax_slot *slot)
{
    atomic_store_explicit(&slot->taken, 0, memory_order_release);
}

static pageattn_jax_slot *find(pageattn_isa isa, int32_t num_workers)
{
    for (int preference = 0; preference < NUM_PREFERENCES; preference++)
        for (int i = 0; i < NUM_SLOTS; i++) {
            if (!try_to_take(&slots[i]))
                continue;
            if (suits(&slots[i], (enum preference)preference, isa, num_workers))
                return &slots[i];
            release(&slots[i]);
        }
    return NULL;
}

/* Makes the context anew unless it is of the right kind. */
static pageattn_status furnish(pageattn_jax_slot *slot, pageattn_isa isa, int32_t num_workers,
                               pageattn_error *error)
{
    if (suits(slot, SAME_KIND, isa, num_workers))
        return PAGEATTN_OK;
    pageattn_executor executor = {
        .struct_size = sizeof(executor),
        .context = &slot->pool,
        .num_workers = num_workers,
        .parallel_for = pageattn_jax_parallel_for,
    };
    pageattn_context_options options;
    pageattn_context_options_init(&options);
    options.isa = isa;
    options.executor = &executor;
    pageattn_context_destroy(slot->context);
    slot->isa = isa;
    slot->num_workers = num_workers;
    return pageattn_context_create(&options, &slot->context, error);
}

pageattn_jax_slot *pageattn_jax_slot_take(pageattn_isa isa, int32_t num_workers,
                                          const pageattn_jax_pool *pool, pageattn_jax_slot *spare,
                                          pageattn_error *error)
{
    pageattn_jax_slot *slot = find(isa, num_workers);
    if (slot == NULL) {
        slot = spare;
        slot->context = NULL;
    }
    if (furnish(slot, isa, num_workers, error) != PAGEATTN_OK) {
        pageattn_jax_slot_give_back(slot, spare);
        return NULL;
    }
    slot->pool = *pool;
    return slot;
}

void pageattn_jax_slot_give_back(pageattn_jax_slot *slot, const pageattn_jax_slot *spare)
{
    if (slot == spare)
        pageattn_context_destroy(slot->context);
    else
        release(slot);
}

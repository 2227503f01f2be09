/* SPDX-License-Identifier: Apache-2.0 */
/* Everything about pages ends here: kernels get pointers to rows. */
#include "walk.h"

#include "kernel/kernels.h"

void pageattn_walk_start(pageattn_walk *walk, const pageattn_plan *plan,
                         const pageattn_shard *shard, _Atomic int64_t *next_task)
{
    *walk = (pageattn_walk){.plan = plan, .shard = shard, .next_task = next_task};
}

static int claim_task(pageattn_walk *walk)
{
    /* Relaxed: the plan was made before the workers started. */
    const int64_t task = atomic_fetch_add_explicit(walk->next_task, 1, memory_order_relaxed);
    if (task >= walk->shard->num_tasks)
        return 0;
    const pageattn_task_range *range = &walk->plan->tasks[walk->shard->first_task + task];
    walk->piece = range->first;
    walk->num_pieces_left = range->num_pieces;
    return 1;
}

static int enter_piece(pageattn_walk *walk)
{
    if (walk->num_pieces_left == 0 && !claim_task(walk))
        return 0;
    const pageattn_piece *piece = &walk->piece;
    pageattn_leaf_place *place = &walk->place;
    place->seq = piece->seq;
    place->kv_head = piece->kv_head;
    place->piece = piece->piece;
    place->first_of_piece = 1;
    pageattn_piece_positions(&walk->plan->seqs[piece->seq - walk->plan->seq_begin], piece->piece,
                             &place->begin, &walk->piece_end);
    walk->num_pieces_left--;
    pageattn_piece_next(walk->plan, walk->shard, &walk->piece);
    return 1;
}

int pageattn_walk_next(pageattn_walk *walk, pageattn_leaf_place *place)
{
    if (walk->place.end < walk->piece_end) {
        walk->place.begin = walk->place.end;
        walk->place.first_of_piece = 0;
    } else if (!enter_piece(walk)) {
        return 0;
    }
    const int64_t leaf_end = (walk->place.begin / PAGEATTN_LEAF_TOKENS + 1) * PAGEATTN_LEAF_TOKENS;
    walk->place.end = leaf_end < walk->piece_end ? leaf_end : walk->piece_end;
    walk->place.last_of_piece = walk->place.end == walk->piece_end;
    *place = walk->place;
    return 1;
}

/* The rows of positions [begin, end); returns where the next one goes. With pages of one token this
 * takes a few percent of a call: copies in locals need not be read again after each store. */
static const char **put_rows(const pageattn_problem *problem, const pageattn_side *side,
                             const pageattn_leaf_place *place, int64_t begin, int64_t end,
                             const char **rows, int *changed)
{
    const pageattn_side cache = *side;
    const int64_t entry_bytes = problem->block_tables.entry_bytes;
    const int64_t num_pages = problem->num_pages, page_size = problem->page_size;
    const char *head = cache.data + place->kv_head * cache.head_bytes;
    const char *entry = pageattn_problem_entry(problem, place->seq, begin / page_size);
    int64_t slot = begin % page_size;
    int wrong = 0;

    while (begin < end) {
        const int64_t left = page_size - slot;
        const int64_t num_slots = left < end - begin ? left : end - begin;
        const int64_t page = pageattn_read_page(entry, num_pages, &wrong);
        const char *row = head + page * cache.page_bytes + slot * cache.slot_bytes;
        *rows++ = row;
        for (int64_t i = 1; i < num_slots; i++)
            *rows++ = row += cache.slot_bytes;
        begin += num_slots;
        entry += entry_bytes;
        slot = 0;
    }
    *changed |= wrong;
    return rows;
}

static const char **repeat_row(const char *row, int64_t count, const char **rows)
{
    for (int64_t i = 0; i < count; i++)
        *rows++ = row;
    return rows;
}

int64_t pageattn_walk_rows_ahead(const pageattn_problem *problem, int64_t prefetch_bytes)
{
    const int64_t beside_keys = pageattn_prefetch_rows(prefetch_bytes, problem->keys.row_bytes);
    const int64_t beside_values = pageattn_prefetch_rows(prefetch_bytes, problem->values.row_bytes);
    return beside_keys > beside_values ? beside_keys : beside_values;
}

int pageattn_walk_rows(const pageattn_problem *problem, const pageattn_leaf_place *place,
                       const pageattn_leaf_place *next, int64_t rows_ahead, const char **rows)
{
    int changed = 0;
    const int64_t before = place->begin % PAGEATTN_LANES;
    const int64_t after = pageattn_padded(place->end) - place->end;

    const char **first = rows + before;
    const char **end =
        put_rows(problem, &problem->keys, place, place->begin, place->end, first, &changed);
    repeat_row(*first, before, rows);
    end = repeat_row(*first, after, end);
    end = put_rows(problem, &problem->values, place, place->begin, place->end, end, &changed);

    int64_t num_next = 0;
    if (next) {
        const int64_t left = next->end - next->begin;
        num_next = left < rows_ahead ? left : rows_ahead;
        end = put_rows(problem, &problem->keys, next, next->begin, next->begin + num_next, end,
                       &changed);
    }
    repeat_row(*first, rows_ahead + 1 - num_next, end);
    return changed;
}

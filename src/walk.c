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

/* Tokens of one KV head, as the block table counts: from a slot of a logical page on. */
typedef struct token_span {
    int64_t seq;
    int64_t kv_head;
    int64_t page;
    int64_t slot;
    int64_t count; /* 1 at least, PAGEATTN_LEAF_TOKENS at most */
} token_span;

static token_span span_of(const pageattn_problem *problem, const pageattn_leaf_place *place,
                          int64_t count)
{
    return (token_span){.seq = place->seq,
                        .kv_head = place->kv_head,
                        .page = place->begin / problem->page_size,
                        .slot = place->begin % problem->page_size,
                        .count = count};
}

/* The first row of each page. With pages of one token this takes a few percent of a call: copies in
 * locals need not be read again after each store. */
static void put_pages(const pageattn_problem *problem, const pageattn_side *side,
                      const token_span *span, const char **pages, int *changed)
{
    const int64_t entry_bytes = problem->block_tables.entry_bytes;
    const int64_t num_pages = problem->num_pages, page_size = problem->page_size;
    const int64_t page_bytes = side->page_bytes, end_slot = span->slot + span->count;
    const char *head = side->data + span->kv_head * side->head_bytes;
    const char *entry = pageattn_problem_entry(problem, span->seq, span->page);
    int wrong = 0;

    for (int64_t slot = 0; slot < end_slot; slot += page_size) {
        *pages++ = head + pageattn_read_page(entry, num_pages, &wrong) * page_bytes;
        entry += entry_bytes;
    }
    *changed |= wrong;
}

/* Returns where the next row goes. Rows of pages of one token are where the pages begin. */
static const char **put_rows(const pageattn_problem *problem, const pageattn_kernels *kernels,
                             const pageattn_side *side, const token_span *span, const char **rows,
                             int *changed)
{
    const char *pages[PAGEATTN_LEAF_TOKENS];
    const pageattn_row_runs runs = {.first = pages,
                                    .num_rows = problem->page_size,
                                    .step = side->slot_bytes,
                                    .skip = span->slot};

    if (problem->page_size == 1) {
        put_pages(problem, side, span, rows, changed);
    } else {
        put_pages(problem, side, span, pages, changed);
        kernels->list_rows(&runs, span->count, rows);
    }
    return rows + span->count;
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

int pageattn_walk_rows(const pageattn_problem *problem, const pageattn_kernels *kernels,
                       const pageattn_leaf_place *place, const pageattn_leaf_place *next,
                       int64_t rows_ahead, const char **rows)
{
    int changed = 0;
    const token_span span = span_of(problem, place, place->end - place->begin);
    const int64_t before = place->begin % PAGEATTN_LANES;
    const int64_t after = pageattn_padded(place->end) - place->end;

    const char **first = rows + before;
    const char **end = put_rows(problem, kernels, &problem->keys, &span, first, &changed);
    repeat_row(*first, before, rows);
    end = repeat_row(*first, after, end);
    end = put_rows(problem, kernels, &problem->values, &span, end, &changed);

    int64_t num_next = 0;
    if (next) {
        const int64_t left = next->end - next->begin;
        num_next = left < rows_ahead ? left : rows_ahead;
        const token_span ahead = span_of(problem, next, num_next);
        end = put_rows(problem, kernels, &problem->keys, &ahead, end, &changed);
    }
    repeat_row(*first, rows_ahead + 1 - num_next, end);
    return changed;
}

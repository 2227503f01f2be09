/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One piece of mathematics in two guises that must give the same bits: other instruction sets,
 * threads, splits, pages, layouts, batches. Fast arithmetic may differ between instruction sets,
 * and so keeps the one it has. Any number may be among the data.
 */
#define _DEFAULT_SOURCE /* mmap's flags */

#include "chosen_case.h"

typedef struct result {
    char *out;
    float *lse;
} result;

static result result_allocate(const logical_case *logical)
{
    const size_t rows = (size_t)(logical->num_seqs * num_heads_of(logical));
    return (result){.out = check_allocate(rows * (size_t)out_row_bytes(logical)),
                    .lse = check_allocate(rows * sizeof(float))};
}

static void result_free(result *rows)
{
    free(rows->out);
    free(rows->lse);
}

/* A batch of its own: some of the sequences, in any order, perhaps one of them twice. */
static void choose_batch(fuzz_input *input, const logical_case *logical, placement *where)
{
    if (fuzz_int(input, 0, 1) == 0)
        return;
    where->num_seqs = fuzz_int(input, 0, logical->num_seqs + 1);
    for (int64_t i = 0; i < where->num_seqs; i++)
        where->order[i] = (int32_t)fuzz_int(input, 0, logical->num_seqs - 1);
}

/* An upper bound of the lengths changes the scratch and nothing else. */
static void choose_max_context_len(fuzz_input *input, const paged_case *paged, pageattn_args *args)
{
    int64_t longest = 0;
    if (fuzz_int(input, 0, 1) == 0)
        return;
    for (int64_t i = 0; i < paged->where.num_seqs; i++) {
        const int64_t len = paged->logical->lens[paged->where.order[i]];
        longest = len > longest ? len : longest;
    }
    args->max_context_len = longest + fuzz_int(input, 0, 1000);
}

static void attend(paged_case *paged, pageattn_context *context, result *rows)
{
    if (!paged_attend(paged, context, "same bits", rows->out, rows->lse))
        abort(); /* it has said why */
}

static void require_same(const paged_case *paged, const result *plain, const result *guise)
{
    const logical_case *logical = paged->logical;
    const int64_t num_heads = num_heads_of(logical);
    const size_t out_bytes = (size_t)(num_heads * out_row_bytes(logical));
    const size_t lse_bytes = (size_t)num_heads * sizeof(float);
    for (int64_t i = 0; i < paged->where.num_seqs; i++) {
        const int64_t seq = paged->where.order[i];
        FUZZ_REQUIRE(memcmp(plain->out + (size_t)seq * out_bytes,
                            guise->out + (size_t)i * out_bytes, out_bytes) == 0,
                     "out of sequence %d, %lld in the batch", (int)seq, (long long)i);
        FUZZ_REQUIRE(memcmp(plain->lse + seq * num_heads, guise->lse + i * num_heads, lse_bytes) ==
                         0,
                     "lse of sequence %d, %lld in the batch", (int)seq, (long long)i);
    }
}

/* Prints what the two calls were, for whoever looks into a difference. */
static void describe(const logical_case *logical, const paged_case *guise, int64_t isa,
                     int64_t guise_isa, int64_t crew)
{
    char text[1000];
    int64_t num_isas;
    const pageattn_isa *isas = isas_here(&num_isas);
    printf("%s\n", describe_logical(logical, text, sizeof(text)));
    printf("%s against %s, %d workers\n", pageattn_isa_name(isas[isa]),
           pageattn_isa_name(isas[guise_isa]), (int)crews[crew].num_workers);
    printf("%s, %d splits\n", describe_placement(&guise->where, text, sizeof(text)),
           (int)guise->args.num_splits);
}

static void compare_guise(fuzz_input *input, const logical_case *logical)
{
    placement where = placement_init(logical, 16);
    paged_case plain, guise;
    const int64_t isa = choose_isa(input);
    int64_t guise_isa = choose_isa(input);
    const int64_t crew = fuzz_int(input, 0, NUM_CREWS - 1);
    if (logical->numerics == PAGEATTN_NUMERICS_FAST &&
        (pageattn_context_has_fast(context_of(isa, 0), logical->kv_type) ||
         pageattn_context_has_fast(context_of(guise_isa, 0), logical->kv_type)))
        guise_isa = isa;

    paged_build(logical, &where, &plain);
    choose_placement(input, logical, &where);
    choose_batch(input, logical, &where);
    paged_build(logical, &where, &guise);
    choose_steering(input, &guise.args);
    choose_max_context_len(input, &guise, &guise.args);

    result plain_rows = result_allocate(logical);
    logical_case batch = *logical;
    batch.num_seqs = where.num_seqs;
    result guise_rows = result_allocate(&batch);
    if (getenv("FUZZ_DESCRIBE") != NULL)
        describe(logical, &guise, isa, guise_isa, crew);
    attend(&plain, context_of(isa, 0), &plain_rows);
    attend(&guise, context_of(guise_isa, crew), &guise_rows);
    require_same(&guise, &plain_rows, &guise_rows);
    result_free(&plain_rows);
    result_free(&guise_rows);
    paged_free(&plain);
    paged_free(&guise);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t num_bytes)
{
    static const double specials[] = {NAN,       INFINITY, -INFINITY, 0,         -0.0,
                                      3.4e38,    -3e38,    0x1p-149,  -0x1p-130, 65504,
                                      0x1.8p-24, 88,       1e4,       0x1p127,   -0x1p-126};
    fuzz_input input = {bytes, bytes + num_bytes};
    logical_case logical;
    choose_logical(&input, specials, COUNT_OF(specials), &logical);
    compare_guise(&input, &logical);
    logical_free(&logical);
    return 0;
}

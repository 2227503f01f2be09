/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every instruction set against the binary64 reference, on guarded memory; and the reference itself
 * against answers worked out by hand.
 */
#define _DEFAULT_SOURCE /* mmap's flags */

#include "accuracy_bound.h"

/* ---- comparing ---- */

static struct {
    double error; /* as a share of the bound */
    double of_max_value;
    char name[1200];
} worst[2][PAGEATTN_F16 + 1]; /* of each numerics and output type */

static void note_error(const logical_case *logical, double error, double bound, double max_value,
                       const char *name)
{
    if (!isfinite(error) || error / bound <= worst[logical->numerics][logical->out_type].error)
        return;
    worst[logical->numerics][logical->out_type].error = error / bound;
    worst[logical->numerics][logical->out_type].of_max_value =
        max_value > 0 ? error / max_value : 0;
    snprintf(worst[logical->numerics][logical->out_type].name, sizeof(worst[0]->name), "%s", name);
}

/* How far a number is from the exact one beyond what its type's rounding explains. */
static double error_beyond_rounding(pageattn_type type, double got, double exact)
{
    int exponent;
    if (type == PAGEATTN_F32)
        return fabs(got - exact);
    frexp(exact, &exponent);
    const int precision = type == PAGEATTN_BF16 ? 8 : 11;
    const int min_exponent = type == PAGEATTN_BF16 ? -125 : -13;
    const double half_ulp =
        ldexp(0.5, (exponent < min_exponent ? min_exponent : exponent) - precision);
    return fmax(0, fabs(got - exact) - half_ulp);
}

static int row_agrees(const logical_case *logical, int64_t seq, int64_t head, const char *out,
                      const double *exact, const char *name)
{
    const pageattn_type type = logical->out_type;
    const double max_value = max_value_of(logical, seq, head / logical->group_size);
    const double bound = out_bound(logical, seq, head);
    for (int64_t d = 0; d < logical->value_head_dim; d++, out += type_bytes(type)) {
        if (!element_agrees(type, out, exact[d], bound)) {
            check_failed(name, "out[%lld][%lld][%lld] = %.9g (0x%x), exactly %.9g, allowed +-%.3g",
                         (long long)seq, (long long)head, (long long)d, decode(type, out),
                         element_bits(type, out), exact[d], bound);
            return 0;
        }
        note_error(logical, error_beyond_rounding(type, decode(type, out), exact[d]), bound,
                   max_value, name);
    }
    return 1;
}

static int check_lse(const logical_case *logical, int64_t seq, int64_t head, float lse,
                     double exact, const char *name)
{
    const double bound = lse_bound(logical, seq, head, exact);
    uint32_t bits;
    memcpy(&bits, &lse, 4);
    if (lse_agrees(lse, exact, bound))
        return 1;
    check_failed(name, "lse[%lld][%lld] = %.9g (0x%x), exactly %.9g, allowed +-%.3g",
                 (long long)seq, (long long)head, (double)lse, bits, exact, bound);
    return 0;
}

/* ---- running a case on every instruction set ---- */

static pageattn_isa isas[MAX_ISAS];
static int num_isas;
static pageattn_context *contexts[MAX_ISAS];

static void create_contexts(void)
{
    num_isas = available_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        pageattn_context_options options;
        pageattn_error error;
        pageattn_context_options_init(&options);
        options.isa = isas[i];
        options.num_threads = 2;
        if (pageattn_context_create(&options, &contexts[i], &error) != PAGEATTN_OK) {
            printf("FAILED context for %s: %s\n", pageattn_isa_name(isas[i]), error.message);
            exit(1);
        }
    }
}

typedef struct results {
    int64_t num_rows;
    char *out; /* [num_seqs][num_heads][value_head_dim] of the batch */
    float *lse;
    double *exact_out;
    double *exact_lse;
} results;

static results results_allocate(const paged_case *paged)
{
    results memory = {.num_rows = paged->where.num_seqs * num_heads_of(paged->logical)};
    const size_t rows = (size_t)memory.num_rows, dim = (size_t)paged->logical->value_head_dim;
    memory.out = check_allocate(rows * dim * 4);
    memory.lse = check_allocate(rows * 4);
    memory.exact_out = check_allocate(rows * dim * 8);
    memory.exact_lse = check_allocate(rows * 8);
    return memory;
}

static void results_free(results *memory)
{
    free(memory->out);
    free(memory->lse);
    free(memory->exact_out);
    free(memory->exact_lse);
}

static int results_agree(const paged_case *paged, const results *memory, const char *name)
{
    const logical_case *logical = paged->logical;
    const int64_t num_heads = num_heads_of(logical), dim = logical->value_head_dim;
    for (int64_t row = 0; row < memory->num_rows; row++) {
        const int64_t seq = paged->where.order[row / num_heads], head = row % num_heads;
        if (!row_agrees(logical, seq, head, memory->out + row * out_row_bytes(logical),
                        memory->exact_out + row * dim, name) ||
            !check_lse(logical, seq, head, memory->lse[row], memory->exact_lse[row], name))
            return 0;
    }
    return 1;
}

/* Compares what is built with the reference, on each instruction set; fast calls only where they
 * are not exact, which they must be to the bit (test_same_bits.c). */
static void check_paged(paged_case *paged, const char *what)
{
    char name[1200], logical_text[700], placement_text[400];
    pageattn_error error;
    results memory = results_allocate(paged);
    describe_logical(paged->logical, logical_text, sizeof(logical_text));
    describe_placement(&paged->where, placement_text, sizeof(placement_text));
    if (pageattn_reference(&paged->args, memory.exact_out, memory.exact_lse, &error) !=
        PAGEATTN_OK) {
        check_failed(what, "reference: %s (%s, %s)", error.message, logical_text, placement_text);
        results_free(&memory);
        return;
    }
    for (int i = 0; i < num_isas; i++) {
        if (paged->logical->numerics == PAGEATTN_NUMERICS_FAST &&
            !pageattn_context_has_fast(contexts[i], paged->logical->kv_type))
            continue;
        snprintf(name, sizeof(name), "%s, %s: %s, %s, %d splits", what, pageattn_isa_name(isas[i]),
                 logical_text, placement_text, (int)paged->args.num_splits);
        if (paged_attend(paged, contexts[i], name, memory.out, memory.lse) &&
            results_agree(paged, &memory, name))
            check_passed(name);
    }
    results_free(&memory);
}

static void check_placed(const logical_case *logical, const placement *where, int num_splits,
                         const char *what)
{
    paged_case paged;
    paged_build(logical, where, &paged);
    paged.args.num_splits = num_splits;
    check_paged(&paged, what);
    paged_free(&paged);
}

static void check_scattered(const logical_case *logical, int64_t page_size, uint64_t *random,
                            const char *what)
{
    placement where = placement_init(logical, page_size);
    placement_scatter(random, &where);
    check_placed(logical, &where, (int)check_random_int(random, 0, 3), what);
}

/* ---- the covering sample ---- */

enum { QUERY, KV, OUT, GROUP, DIM, PAGE, LEN, OPTION, NUM_AXES };

enum {
    PLAIN,
    CAP_1,
    CAP_30,
    WINDOW,
    WINDOW_AND_CAP,
    SOFT_HALF,
    SOFT_TEN,
    SOFT_HUGE,
    NEGATIVE_SCALE,
    ZERO_SCALE,
    LARGE_LOGITS,
    ONE_DOMINANT,
    NUM_OPTIONS
};

static const int64_t groups[] = {1, 2, 3, 4, 7, 8, 16, 71};
static const int64_t dims[] = {1, 15, 16, 40, 64, 72, 80, 96, 128, 192, 256, 576};
static const int64_t page_sizes[] = {1, 5, 16, 32, 64, 256};
static const int64_t lengths[] = {0,   1,   2,   4,    5,    6,    15,   16,   17,   31,  32,
                                  33,  63,  64,  65,   100,  255,  256,  257,  511,  512, 513,
                                  767, 769, 777, 1000, 1024, 2049, 4095, 4096, 4097, 5000};
#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))
#define MAX_VALUES COUNT(lengths)

static const int axis_size[NUM_AXES] = {
    3, 3, 3, COUNT(groups), COUNT(dims), COUNT(page_sizes), COUNT(lengths), NUM_OPTIONS};
static char pair_seen[NUM_AXES][MAX_VALUES][NUM_AXES][MAX_VALUES];

static int count_new_pairs(const int *value)
{
    int count = 0;
    for (int a = 0; a < NUM_AXES; a++)
        for (int b = 0; b < a; b++)
            count += !pair_seen[a][value[a]][b][value[b]];
    return count;
}

static int mark_pairs(const int *value)
{
    int count = count_new_pairs(value);
    for (int a = 0; a < NUM_AXES; a++)
        for (int b = 0; b < a; b++)
            pair_seen[a][value[a]][b][value[b]] = 1;
    return count;
}

/* Multiplications for one KV head: what the reference and the scalar kernels take long over. */
static double cost_of(const int *value)
{
    return (double)groups[value[GROUP]] * (double)dims[value[DIM]] * (double)lengths[value[LEN]];
}

/* The best of a few random candidates, all of which hold one pair that is still missing. */
static void choose_case(uint64_t *random, double max_cost, const int *must, int *chosen)
{
    int best = -1;
    for (int try = 0; try < 200 && (try < 30 || best < 0); try++) {
        int value[NUM_AXES];
        for (int a = 0; a < NUM_AXES; a++)
            value[a] = must[a] >= 0 ? must[a] : (int)check_random_int(random, 0, axis_size[a] - 1);
        const int count = cost_of(value) <= max_cost ? count_new_pairs(value) : -1;
        if (count > best) {
            best = count;
            memcpy(chosen, value, sizeof(value));
        }
    }
}

static void set_option(int option, int64_t len, uint64_t *random, logical_case *logical)
{
    const float default_scale = 1 / sqrtf((float)logical->head_dim);
    if (option == CAP_1 || option == CAP_30 || option == WINDOW_AND_CAP)
        logical->soft_cap = option == CAP_1 ? 1 : 30;
    if (option == WINDOW || option == WINDOW_AND_CAP || option == SOFT_HALF || option == SOFT_TEN ||
        option == SOFT_HUGE)
        logical->window = (int32_t)check_random_int(random, 1, len + 2);
    if (option == WINDOW && check_random_int(random, 0, 1))
        logical->mask_value = check_random_int(random, 0, 1) ? -INFINITY : -1e9f;
    if (option == SOFT_HALF || option == SOFT_TEN || option == SOFT_HUGE)
        logical->mask_value = option == SOFT_HALF ? -0.5f : option == SOFT_TEN ? -10 : -9.9e8f;
    if (option == NEGATIVE_SCALE)
        logical->attn_scale = -default_scale;
    if (option == ZERO_SCALE)
        logical->attn_scale = 0;
    if (option == LARGE_LOGITS) /* a spread of 2500: the greatest come to 1e4 */
        logical->attn_scale = 2500 * default_scale;
}

/* One key of each head becomes a query row times so much that its logit towers above the others. */
static void add_dominant_keys(uint64_t *random, logical_case *logical)
{
    for (int64_t seq = 0; seq < logical->num_seqs; seq++) {
        if (logical->lens[seq] == 0)
            continue;
        for (int64_t h = 0; h < logical->num_kv_heads; h++) {
            const int64_t t =
                check_random_int(random, first_position(logical, seq), logical->lens[seq] - 1);
            const char *query = query_row(logical, seq, h * logical->group_size);
            for (int64_t d = 0; d < logical->head_dim; d++)
                set_key(
                    logical, seq, h, t, d,
                    4 * decode(logical->query_type, query + d * type_bytes(logical->query_type)));
        }
    }
}

static void run_sample_case(uint64_t *random, const int *value, pageattn_numerics numerics)
{
    logical_case logical = logical_init();
    logical.numerics = numerics;
    logical.seed = check_random(random) >> 40;
    logical.query_type = (pageattn_type)(value[QUERY] + 1);
    logical.kv_type =
        numerics == PAGEATTN_NUMERICS_FAST ? PAGEATTN_BF16 : (pageattn_type)(value[KV] + 1);
    logical.out_type = (pageattn_type)(value[OUT] + 1);
    logical.group_size = groups[value[GROUP]];
    logical.head_dim = dims[value[DIM]];
    logical.value_head_dim = logical.head_dim == 576 ? 512 : logical.head_dim;
    logical.lens[0] = lengths[value[LEN]];
    if (cost_of(value) < 1e6) {
        logical.num_kv_heads = check_random_int(random, 1, 3);
        logical.num_seqs = check_random_int(random, 1, 3);
        for (int64_t seq = 1; seq < logical.num_seqs; seq++)
            logical.lens[seq] = check_random_int(random, 0, 300);
    }
    set_option(value[OPTION], logical.lens[0], random, &logical);
    logical_fill(&logical);
    if (value[OPTION] == ONE_DOMINANT)
        add_dominant_keys(random, &logical);
    check_scattered(&logical, page_sizes[value[PAGE]], random, "sample");
    logical_free(&logical);
}

/* Until each value of each axis has met each value of each other one. With the reduced matrix,
 * until each value was there. A pair of the greatest values costs less than max_cost. */
static void test_covering_sample(uint64_t *random)
{
    const double max_cost = reduced_matrix() ? 2e6 : 2e7;
    int num_cases = 0;
    for (int a = 0; a < NUM_AXES; a++)
        for (int i = 0; i < axis_size[a]; i++)
            for (int b = 0; b < a; b++)
                for (int j = 0; j < axis_size[b]; j++) {
                    int must[NUM_AXES] = {-1, -1, -1, -1, -1, -1, -1, -1}, value[NUM_AXES];
                    if (pair_seen[a][i][b][j] || (reduced_matrix() && (j > 0 || b > 0)))
                        continue;
                    must[a] = i;
                    must[b] = j;
                    choose_case(random, max_cost, must, value);
                    mark_pairs(value);
                    uint64_t fast_random = *random;
                    run_sample_case(random, value, PAGEATTN_NUMERICS_EXACT);
                    run_sample_case(&fast_random, value, PAGEATTN_NUMERICS_FAST);
                    num_cases++;
                }
    printf("covering sample: %d cases\n", num_cases);
}

/* ---- what the sample does not hold ---- */

/* The case that docs/numerics.md names: a spread of 1, so exactly 5e-7 of the greatest |v|. */
static void test_design_point(uint64_t *random)
{
    logical_case logical = logical_init();
    logical.num_kv_heads = reduced_matrix() ? 1 : 4;
    logical.group_size = 4;
    logical.head_dim = logical.value_head_dim = 128;
    logical.lens[0] = 4096;
    logical.seed = 2;
    logical_fill(&logical);
    check_scattered(&logical, 16, random, "4,096 tokens of 128");
    logical_free(&logical);
}

/* The same with fast arithmetic, where errors average out to far less than the bound of all cases:
 * the bounds that docs/numerics.md names for a bf16 query and for an f32 one. */
static void test_fast_design_point(uint64_t *random, pageattn_type query_type, double bound)
{
    logical_case logical = logical_init();
    paged_case paged;
    logical.numerics = PAGEATTN_NUMERICS_FAST;
    logical.query_type = query_type;
    logical.kv_type = PAGEATTN_BF16;
    logical.num_kv_heads = reduced_matrix() ? 1 : 4;
    logical.group_size = 4;
    logical.head_dim = logical.value_head_dim = 128;
    logical.lens[0] = 4096;
    logical.seed = 4;
    logical_fill(&logical);
    check_scattered(&logical, 16, random, "4,096 tokens of 128, fast");
    const placement where = placement_init(&logical, 16);
    paged_build(&logical, &where, &paged);
    results memory = results_allocate(&paged);
    if (pageattn_reference(&paged.args, memory.exact_out, memory.exact_lse, NULL) == PAGEATTN_OK &&
        paged_attend(&paged, contexts[num_isas - 1], "fast design point", memory.out, memory.lse)) {
        double error = 0;
        for (int64_t i = 0; i < memory.num_rows * 128; i++) {
            const double out = (double)((const float *)(const void *)memory.out)[i];
            const double difference = fabs(out - memory.exact_out[i]);
            /* Not fmax: gcc 12 for AArch64 ends with an internal error when it vectorises that. */
            error = difference > error ? difference : error;
        }
        error /= max_value_of(&logical, 0, 0);
        printf("fast, 4,096 tokens of 128, %s query: %.3g of the greatest |v|\n",
               type_name(query_type), error);
        check_that(error <= bound, "fast arithmetic at the design point");
    }
    results_free(&memory);
    paged_free(&paged);
    logical_free(&logical);
}

static void test_long_context(uint64_t *random)
{
    logical_case logical = logical_init();
    logical.kv_type = PAGEATTN_BF16;
    logical.group_size = 2;
    logical.head_dim = logical.value_head_dim = reduced_matrix() ? 16 : 64;
    logical.lens[0] = 131072;
    logical.seed = 3;
    logical_fill(&logical);
    check_scattered(&logical, 16, random, "long context");
    add_dominant_keys(random, &logical);
    check_scattered(&logical, 256, random, "long context, one dominant logit");
    logical_free(&logical);
}

static void test_head_dims(uint64_t *random)
{
    static const int64_t pairs[][2] = {{1024, 1024}, {1024, 1}, {1, 1000}, {40, 24},
                                       {24, 40},     {128, 17}, {65, 130}};
    for (int i = 0; i < COUNT(pairs); i++)
        for (int type = PAGEATTN_F32; type <= PAGEATTN_F16; type++) {
            logical_case logical = logical_init();
            logical.query_type = logical.out_type = logical.kv_type = (pageattn_type)type;
            logical.num_kv_heads = 2;
            logical.group_size = 5;
            logical.head_dim = pairs[i][0];
            logical.value_head_dim = pairs[i][1];
            logical.lens[0] = 300;
            logical.seed = (uint64_t)(10 + i);
            logical_fill(&logical);
            check_scattered(&logical, 16, random, "head_dim");
            logical_free(&logical);
        }
}

static void test_scales(uint64_t *random)
{
    static const float scales[] = {1, -3, 1e-3f, 1e-30f, 100, -1000, 0x1p-140f};
    for (int i = 0; i < COUNT(scales); i++) {
        logical_case logical = logical_init();
        logical.kv_type = PAGEATTN_F16;
        logical.group_size = 4;
        logical.head_dim = logical.value_head_dim = 48;
        logical.lens[0] = 700;
        logical.attn_scale = scales[i];
        logical.seed = (uint64_t)(30 + i);
        logical_fill(&logical);
        check_scattered(&logical, 5, random, "attn_scale");
        logical_free(&logical);
    }
}

static logical_case two_kv_heads(int64_t num_seqs, int64_t len, uint64_t seed)
{
    logical_case logical = logical_init();
    logical.num_seqs = num_seqs;
    logical.num_kv_heads = 2;
    logical.group_size = 3;
    logical.head_dim = 24;
    logical.value_head_dim = 20;
    logical.seed = seed;
    for (int64_t seq = 0; seq < num_seqs; seq++)
        logical.lens[seq] = len;
    return logical;
}

/* KV heads that are one in memory, and one query row for all. */
static void test_zero_strides(void)
{
    logical_case logical = two_kv_heads(3, 270, 50);
    paged_case paged;
    logical_fill(&logical);
    for (int64_t seq = 0; seq < 3; seq++) {
        memcpy(key_row(&logical, seq, 1, 0), key_row(&logical, seq, 0, 0), 270 * 24 * 4);
        memcpy(value_row(&logical, seq, 1, 0), value_row(&logical, seq, 0, 0), 270 * 20 * 4);
        for (int64_t h = 0; h < 6; h++)
            memmove(query_row(&logical, seq, h), query_row(&logical, 0, 0), 24 * 4);
    }
    placement where = placement_init(&logical, 16);
    where.broadcast = AXIS_HEADS;
    where.shuffle = 7;
    paged_build(&logical, &where, &paged);
    paged.args.query.stride[0] = paged.args.query.stride[1] = 0;
    check_paged(&paged, "zero strides");
    paged_free(&paged);
    logical_free(&logical);
}

/* A prompt's tokens as rows of one call: one block table, growing lengths. */
static void test_shared_block_table(void)
{
    static const int64_t lens[] = {1, 17, 256, 257, 600};
    logical_case whole = two_kv_heads(1, 600, 60), rows = two_kv_heads(5, 0, 60);
    paged_case paged_whole, paged_rows;
    memcpy(rows.lens, lens, sizeof(lens));
    logical_fill(&whole);
    logical_fill(&rows);
    for (int64_t seq = 0; seq < 5; seq++)
        for (int64_t h = 0; h < 2; h++) {
            memcpy(key_row(&rows, seq, h, 0), key_row(&whole, 0, h, 0), (size_t)lens[seq] * 24 * 4);
            memcpy(value_row(&rows, seq, h, 0), value_row(&whole, 0, h, 0),
                   (size_t)lens[seq] * 20 * 4);
        }
    placement where_whole = placement_init(&whole, 16), where_rows = placement_init(&rows, 16);
    where_whole.shuffle = 9;
    paged_build(&whole, &where_whole, &paged_whole);
    paged_build(&rows, &where_rows, &paged_rows);
    paged_rows.args.key_cache = paged_whole.args.key_cache;
    paged_rows.args.value_cache = paged_whole.args.value_cache;
    paged_rows.args.block_tables = paged_whole.args.block_tables;
    paged_rows.args.block_tables.shape[0] = 5;
    paged_rows.args.block_tables.stride[0] = 0;
    check_paged(&paged_rows, "shared block table");
    paged_free(&paged_whole);
    paged_free(&paged_rows);
    logical_free(&whole);
    logical_free(&rows);
}

/* ---- NaN and infinity ---- */

enum { DIRTY_SEQ = 1, DIRTY_KV_HEAD = 1, DIRTY_DIM = 5 };

static void set_keys(logical_case *logical, int64_t begin, int64_t end, double x)
{
    for (int64_t t = begin; t < end; t++)
        set_key(logical, DIRTY_SEQ, DIRTY_KV_HEAD, t, DIRTY_DIM, x);
}

static void set_values(logical_case *logical, int64_t begin, int64_t end, double x)
{
    for (int64_t t = begin; t < end; t++)
        set_value(logical, DIRTY_SEQ, DIRTY_KV_HEAD, t, DIRTY_DIM, x);
}

enum {
    NAN_KEY,
    NAN_IN_LAST_KEY,
    NAN_VALUE,
    INF_VALUE,
    MINUS_INF_VALUE,
    BOTH_INF_VALUES,
    INF_KEY,
    MINUS_INF_KEY,
    MINUS_INF_LEAF,
    MINUS_INF_LEAVES,
    MINUS_INF_KEYS,
    MINUS_INF_KEYS_AND_INF_VALUE,
    INF_KEY_AND_NAN_KEY,
    INF_AND_MINUS_INF_KEY,
    LARGE_VALUES,
    NUM_DIRTS
};
static const char *const dirt_names[NUM_DIRTS] = {"NaN key",
                                                  "NaN in the last key",
                                                  "NaN value",
                                                  "inf value",
                                                  "-inf value",
                                                  "inf and -inf values",
                                                  "inf logit",
                                                  "-inf logit",
                                                  "first leaf of -inf logits",
                                                  "two leaves of -inf logits",
                                                  "only -inf logits",
                                                  "only -inf logits and an inf value",
                                                  "inf and NaN logits",
                                                  "inf and -inf logits",
                                                  "large values"};

/* The query's element is 1, so that a key's element rules the sign of the logit. */
static void add_dirt(logical_case *logical, int dirt)
{
    const int64_t len = logical->lens[DIRTY_SEQ];
    const double inf = (double)INFINITY, nan = (double)NAN;
    if (dirt == NAN_KEY || dirt == INF_KEY_AND_NAN_KEY)
        set_keys(logical, 300, 301, nan);
    if (dirt == NAN_IN_LAST_KEY)
        set_keys(logical, len - 1, len, nan);
    if (dirt == NAN_VALUE)
        set_values(logical, 17, 18, nan);
    if (dirt == INF_VALUE || dirt == BOTH_INF_VALUES || dirt == MINUS_INF_KEYS_AND_INF_VALUE)
        set_values(logical, 17, 18, inf);
    if (dirt == MINUS_INF_VALUE || dirt == BOTH_INF_VALUES)
        set_values(logical, 400, 401, -inf);
    if (dirt == INF_KEY || dirt == INF_KEY_AND_NAN_KEY || dirt == INF_AND_MINUS_INF_KEY)
        set_keys(logical, 100, 101, inf);
    if (dirt == MINUS_INF_KEY || dirt == INF_AND_MINUS_INF_KEY)
        set_keys(logical, 101, 102, -inf);
    if (dirt == MINUS_INF_LEAF || dirt == MINUS_INF_LEAVES)
        set_keys(logical, 0, dirt == MINUS_INF_LEAF ? 256 : 512, -inf);
    if (dirt == MINUS_INF_KEYS || dirt == MINUS_INF_KEYS_AND_INF_VALUE)
        set_keys(logical, 0, len, -inf);
    if (dirt == LARGE_VALUES && logical->kv_type != PAGEATTN_F16)
        set_values(logical, 0, len, 1e5); /* more than f16 can hold */
}

static logical_case dirty_case(int kv_type, int out_type, pageattn_numerics numerics)
{
    logical_case logical = two_kv_heads(3, 600, 70);
    logical.kv_type = (pageattn_type)kv_type;
    logical.out_type = (pageattn_type)out_type;
    logical.numerics = numerics;
    logical_fill(&logical);
    for (int64_t h = 0; h < num_heads_of(&logical); h++)
        set_query(&logical, DIRTY_SEQ, h, DIRTY_DIM, 1);
    return logical;
}

/* Every row but those of the dirty group must be the same bits as in the clean call. */
static void check_others_same(const paged_case *clean, const paged_case *dirty, const char *name)
{
    paged_case copies[2] = {*clean, *dirty};
    results memory[2];
    for (int isa = 0; isa < num_isas; isa++) {
        int same = 1;
        for (int i = 0; i < 2; i++) {
            memory[i] = results_allocate(&copies[i]);
            same &= paged_attend(&copies[i], contexts[isa], name, memory[i].out, memory[i].lse);
        }
        const int64_t bytes = out_row_bytes(clean->logical);
        for (int64_t row = 0; same && row < memory[0].num_rows; row++)
            if (row / 3 != DIRTY_SEQ * 2 + DIRTY_KV_HEAD &&
                (memcmp(memory[0].out + row * bytes, memory[1].out + row * bytes, (size_t)bytes) !=
                     0 ||
                 memcmp(&memory[0].lse[row], &memory[1].lse[row], 4) != 0)) {
                check_failed(name, "%s: changed row [%lld][%lld]", pageattn_isa_name(isas[isa]),
                             (long long)row / 6, (long long)row % 6);
                same = 0;
            }
        if (same)
            check_passed(name);
        for (int i = 0; i < 2; i++)
            results_free(&memory[i]);
    }
}

static void test_not_finite(int kv_type, int out_type, pageattn_numerics numerics, int soft_cap)
{
    for (int dirt = 0; dirt < NUM_DIRTS; dirt++) {
        logical_case clean = dirty_case(kv_type, out_type, numerics);
        logical_case dirty = dirty_case(kv_type, out_type, numerics);
        paged_case paged[2];
        clean.soft_cap = dirty.soft_cap = soft_cap ? 20 : 0;
        add_dirt(&dirty, dirt);
        placement where = placement_init(&clean, 16);
        where.shuffle = 5;
        paged_build(&clean, &where, &paged[0]);
        paged_build(&dirty, &where, &paged[1]);
        check_paged(&paged[1], dirt_names[dirt]);
        check_others_same(&paged[0], &paged[1], dirt_names[dirt]);
        for (int i = 0; i < 2; i++)
            paged_free(&paged[i]);
        logical_free(&clean);
        logical_free(&dirty);
    }
}

/* A row is one head's: a NaN in its query touches no other head of the group. */
static void test_nan_query(void)
{
    logical_case logical = dirty_case(PAGEATTN_F32, PAGEATTN_F32, PAGEATTN_NUMERICS_EXACT);
    placement where = placement_init(&logical, 16);
    set_query(&logical, DIRTY_SEQ, 4, DIRTY_DIM, (double)NAN);
    check_placed(&logical, &where, 2, "NaN query");
    logical_free(&logical);
}

/* ---- the reference, by hand ---- */

/* One head, head_dim 1, query 1, scale 1: a key is its logit. Three pages of one token. */
typedef struct by_hand {
    const char *name;
    int32_t num_tokens;
    float keys[3];
    float values[3];
    float soft_cap;
    int32_t window;
    float mask_value;
    double out;
    double lse;
} by_hand;

static int near(double got, double expected)
{
    return isnan(expected) ? isnan(got)
                           : got == expected || fabs(got - expected) < 1e-15 * fabs(expected) * 4;
}

static void check_by_hand(by_hand one)
{
    float query = 1, row = 0;
    int32_t table[3] = {0, 1, 2};
    double out, lse;
    pageattn_args args;
    pageattn_error error = {.message = "wrong"};
    pageattn_args_init(&args);
    args.query = pageattn_tensor_3d(&query, PAGEATTN_F32, 1, 1, 1);
    args.key_cache = pageattn_cache(one.keys, PAGEATTN_F32, PAGEATTN_HND_PAGES, 1, 3, 1, 1);
    args.value_cache = pageattn_cache(one.values, PAGEATTN_F32, PAGEATTN_HND_PAGES, 1, 3, 1, 1);
    args.context_lens = pageattn_tensor_1d(&one.num_tokens, PAGEATTN_I32, 1);
    args.block_tables = pageattn_tensor_2d(table, PAGEATTN_I32, 1, 3);
    args.out = pageattn_tensor_3d(&row, PAGEATTN_F32, 1, 1, 1);
    args.attn_logits_soft_cap = one.soft_cap;
    args.sliding_window = one.window;
    args.mask_value = one.mask_value < 0 ? one.mask_value : args.mask_value;
    if (pageattn_reference(&args, &out, &lse, &error) == PAGEATTN_OK && near(out, one.out) &&
        near(lse, one.lse))
        check_passed(one.name);
    else
        check_failed(one.name, "got %.17g and %.17g, by hand %.17g and %.17g; %s", out, lse,
                     one.out, one.lse, error.message);
}

static void test_reference_by_hand(void)
{
    const float inf = INFINITY;
    const by_hand cases[] = {
        {"hand: no token", 0, .out = 0, .lse = -(double)inf},
        {"hand: one token", 1, {-3}, {7}, .out = 7, .lse = -3},
        {"hand: two equal logits", 2, {2, 2}, {1, 3}, .out = 2, .lse = 2.6931471805599454},
        /* 1 / (1 + e^-1), log(1 + e) */
        {"hand: logits 0 and 1",
         2,
         {0, 1},
         {0, 1},
         .out = 0.7310585786300049,
         .lse = 1.3132616875182228},
        /* 2 tanh(1/2), 2 tanh(-3/2) */
        {"hand: soft cap",
         2,
         {1, -3},
         {3, 5},
         .soft_cap = 2,
         .out = 3.1219325191069722,
         .lse = 0.9871381826215376},
        {"hand: hard window",
         3,
         {9, 2, 2},
         {100, 1, 3},
         .window = 2,
         .out = 2,
         .lse = 2.6931471805599454},
        /* logits 1/2, 1/2, 1: 1 / (2 + e^(1/2)), log(2 e^(1/2) + e) */
        {"hand: soft mask",
         3,
         {1, 1, 1},
         {1, 0, 0},
         .window = 1,
         .mask_value = -0.5f,
         .out = 0.27406861906119695,
         .lse = 1.7943767694176431},
        /* the mask comes after the cap: 2 tanh(1/2) - 1/2, 2 tanh(1/2) */
        {"hand: soft cap, then soft mask",
         2,
         {1, 1},
         {0, 1},
         .soft_cap = 2,
         .window = 1,
         .mask_value = -0.5f,
         .out = 0.6224593312018546,
         .lse = 1.398311298700126},
        {"hand: one -inf logit", 2, {-inf, 4}, {5, 6}, .out = 6, .lse = 4},
        {"hand: only -inf logits", 2, {-inf, -inf}, {5, 6}, .out = NAN, .lse = -(double)inf},
        {"hand: an inf logit", 2, {inf, 0}, {5, 6}, .out = NAN, .lse = NAN},
        {"hand: NaN logit", 2, {0, NAN}, {5, 6}, .out = NAN, .lse = NAN},
        {"hand: inf value", 2, {0, 0}, {5, inf}, .out = (double)inf, .lse = 0.6931471805599453},
    };
    for (int i = 0; i < COUNT(cases); i++)
        check_by_hand(cases[i]);
}

/* Pages, slots, groups, narrow types and scale: two sequences, four heads, two KV heads, pages of
 * two tokens. All values of a head are equal within a token, so that averages are easy. */
static void test_reference_places(void)
{
    /* [kv head][page][slot]; bf16 2 = 0x4000, 4 = 0x4080, 8 = 0x4100, 16 = 0x4180, 32 = 0x4200 */
    uint16_t keys[2][3][2] = {{{0}}};
    uint16_t values[2][3][2] = {{{0x4000, 0x7fc0}, {0x4080, 0x4100}, {0x7fc0, 0x7fc0}},
                                {{0x4100, 0x7fc0}, {0x4200, 0x4180}, {0x7fc0, 0x7fc0}}};
    uint16_t query[2][4][1] = {{{0x3c00}, {0x3c00}, {0x3c00}, {0x3c00}}, {{0}, {0}, {0}, {0}}};
    int32_t lens[2] = {3, 1}, tables[2][2] = {{1, 0}, {0, -1}};
    double out[2][4], lse[2][4];
    pageattn_args args;
    keys[1][1][1] = 0x4000; /* sequence 0, KV head 1, token 1: 0.5 * 1 (f16 0x3c00) * 2 = 1 */
    pageattn_args_init(&args);
    args.attn_scale = 0.5f;
    args.query = pageattn_tensor_3d(query, PAGEATTN_F16, 2, 4, 1);
    args.key_cache = pageattn_cache(keys, PAGEATTN_BF16, PAGEATTN_HND_PAGES, 2, 3, 2, 1);
    args.value_cache = pageattn_cache(values, PAGEATTN_BF16, PAGEATTN_HND_PAGES, 2, 3, 2, 1);
    args.context_lens = pageattn_tensor_1d(lens, PAGEATTN_I32, 2);
    args.block_tables = pageattn_tensor_2d(tables, PAGEATTN_I32, 2, 2);
    float unused[8];
    args.out = pageattn_tensor_3d(unused, PAGEATTN_F32, 2, 4, 1);
    if (pageattn_reference(&args, out[0], lse[0], NULL) != PAGEATTN_OK) {
        check_failed("hand: places", "refused");
        return;
    }
    const double kv1 = (32 + 16 * 2.718281828459045 + 8) / (2 + 2.718281828459045);
    const double log3 = 1.0986122886681098, kv1_lse = 1.5514447139320511; /* log(2 + e) */
    const double expected[2][4] = {{14.0 / 3, 14.0 / 3, kv1, kv1}, {2, 2, 8, 8}};
    const double expected_lse[2][4] = {{log3, log3, kv1_lse, kv1_lse}, {0, 0, 0, 0}};
    for (int s = 0; s < 2; s++)
        for (int h = 0; h < 4; h++)
            if (near(out[s][h], expected[s][h]) && near(lse[s][h], expected_lse[s][h]))
                check_passed("hand: places");
            else
                check_failed("hand: places", "[%d][%d]: %.17g and %.17g, by hand %.17g and %.17g",
                             s, h, out[s][h], lse[s][h], expected[s][h], expected_lse[s][h]);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    name_crashes();
    uint64_t random = check.seed;
    create_contexts();
    test_reference_by_hand();
    test_reference_places();
    test_covering_sample(&random);
    test_design_point(&random);
    test_fast_design_point(&random, PAGEATTN_BF16, 1.5e-4);
    test_fast_design_point(&random, PAGEATTN_F32, 1.5e-4);
    test_long_context(&random);
    test_head_dims(&random);
    test_scales(&random);
    test_zero_strides();
    test_shared_block_table();
    for (int kv_type = PAGEATTN_F32; kv_type <= PAGEATTN_F16; kv_type++)
        for (int out_type = PAGEATTN_F32; out_type <= PAGEATTN_F16; out_type++)
            for (int soft_cap = 0; soft_cap < 2; soft_cap++)
                test_not_finite(kv_type, out_type, PAGEATTN_NUMERICS_EXACT, soft_cap);
    for (int soft_cap = 0; soft_cap < 2; soft_cap++)
        test_not_finite(PAGEATTN_BF16, PAGEATTN_F32, PAGEATTN_NUMERICS_FAST, soft_cap);
    test_nan_query();
    for (int i = 0; i < num_isas; i++)
        pageattn_context_destroy(contexts[i]);
    for (int numerics = 0; numerics < 2; numerics++)
        for (int type = PAGEATTN_F32; type <= PAGEATTN_F16; type++)
            printf("worst error, %s%s: %.3f of its bound, %.3g of the greatest |v| (%s)\n",
                   numerics ? "fast, " : "", type_name((pageattn_type)type),
                   worst[numerics][type].error, worst[numerics][type].of_max_value,
                   worst[numerics][type].name);
    return check_finish();
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call, right or nearly right. A plausible call is built from the input between forbidden
 * pages, and then up to three things of it may become wrong. fuzz/judge.h says whether the call is
 * still a right one, and the library must agree:
 *
 * - a right call is computed, touches nothing it may not, and comes close to the reference;
 * - a wrong one gets a status and a sentence, and leaves `out` and `lse` as they were.
 */
#define _DEFAULT_SOURCE /* mmap's flags */

#include "../tests/accuracy_bound.h"
#include "chosen_case.h"
#include "judge.h"

/* docs/numerics.md states bounds that hold for a few hundred thousand numbers of random data; of
 * the billions that a fuzzer looks at, some are luckier. */
#define LUCK 3

/* Tokens of a call, wrong lengths included, which somebody would have to walk. */
#define MAX_TOKENS 20000

/* ---- making it wrong ---- */

static pageattn_tensor *tensor_of(pageattn_args *args, int which)
{
    pageattn_tensor *const tensors[] = {
        &args->query,        &args->key_cache, &args->value_cache, &args->context_lens,
        &args->block_tables, &args->out,       &args->lse};
    return tensors[which];
}

static region *region_of(paged_case *paged, int which)
{
    region *const regions[] = {&paged->query,  &paged->keys, &paged->values, &paged->lens,
                               &paged->tables, &paged->out,  &paged->lse};
    return regions[which];
}

/* Something else in place of a number: a little or far off. */
static int64_t wrong_number(fuzz_input *input, int64_t right)
{
    const uint64_t u = (uint64_t)right;
    switch (fuzz_int(input, 0, 12)) {
    case 0:
        return (int64_t)(u + 1);
    case 1:
        return (int64_t)(u - 1);
    case 2:
        return (int64_t)(0 - u);
    case 3:
        return 0;
    case 4:
        return 1;
    case 5:
        return -1;
    case 6:
        return (int64_t)(2 * u);
    case 7:
        return right / 2;
    case 8:
        return INT64_MAX;
    case 9:
        return INT64_MIN;
    case 10:
        return (int64_t)(UINT64_C(1) << fuzz_int(input, 0, 63));
    case 11:
        return (int64_t)(u + (UINT64_C(1) << fuzz_int(input, 0, 63)));
    default:
        return (int64_t)(u + (uint64_t)fuzz_int(input, -20, 20));
    }
}

static void wrong_data(fuzz_input *input, pageattn_args *args, pageattn_tensor *tensor)
{
    char *data = tensor->data;
    switch (fuzz_int(input, 0, 4)) {
    case 0:
        tensor->data = NULL;
        break;
    case 1:
        tensor->data = tensor_of(args, (int)fuzz_int(input, 0, NUM_TENSORS - 1))->data;
        break;
    case 2: /* as an integer: far outside any object */
        tensor->data = (void *)((uintptr_t)data + (uintptr_t)wrong_number(input, 0));
        break;
    default:
        tensor->data = (void *)((uintptr_t)data + (uintptr_t)fuzz_int(input, -9, 9));
        break;
    }
}

static void wrong_tensor(fuzz_input *input, pageattn_args *args)
{
    pageattn_tensor *tensor = tensor_of(args, (int)fuzz_int(input, 0, NUM_TENSORS - 1));
    const int64_t axis = fuzz_int(input, 0, PAGEATTN_MAX_RANK - 1);
    switch (fuzz_int(input, 0, 4)) {
    case 0:
        tensor->stride[axis] = wrong_number(input, tensor->stride[axis]);
        break;
    case 1:
        tensor->shape[axis] = wrong_number(input, tensor->shape[axis]);
        break;
    case 2:
        wrong_data(input, args, tensor);
        break;
    case 3:
        tensor->type = (pageattn_type)fuzz_int(input, 0, 6);
        break;
    case 4:
        tensor->rank = (int32_t)wrong_number(input, tensor->rank);
        break;
    }
}

/* The same size of all tensors that have it: such a call may well be right. */
static void wrong_size(fuzz_input *input, pageattn_args *args)
{
    static const struct {
        int tensor[5], axis[5], count;
    } sizes[] = {
        {{QUERY, LENS, TABLES, OUT, LSE}, {0, 0, 0, 0, 0}, 5}, /* num_seqs */
        {{QUERY, OUT, LSE}, {1, 1, 1}, 3},                     /* num_heads */
        {{KEYS, VALUES}, {0, 0}, 2},                           /* num_kv_heads */
        {{KEYS, VALUES}, {1, 1}, 2},                           /* num_pages */
        {{KEYS, VALUES}, {2, 2}, 2},                           /* page_size */
        {{TABLES}, {1}, 1},                                    /* max_blocks */
        {{QUERY, KEYS}, {2, 3}, 2},                            /* head_dim */
        {{VALUES, OUT}, {3, 2}, 2},                            /* value_head_dim */
    };
    const int64_t which = fuzz_int(input, 0, COUNT_OF(sizes) - 1);
    const int64_t right = tensor_of(args, sizes[which].tensor[0])->shape[sizes[which].axis[0]];
    const int64_t wrong = wrong_number(input, right);
    for (int i = 0; i < sizes[which].count; i++)
        tensor_of(args, sizes[which].tensor[i])->shape[sizes[which].axis[i]] = wrong;
}

static float wrong_float(fuzz_input *input)
{
    static const float floats[] = {
        0,       1,        -1,     -0.0f, NAN,     INFINITY, -INFINITY,
        3.4e38f, -3.4e38f, 1e-45f, -1e9f, -9.9e8f, 0.5f,     PAGEATTN_DEFAULT_ATTN_SCALE};
    return floats[fuzz_int(input, 0, COUNT_OF(floats) - 1)];
}

static void wrong_option(fuzz_input *input, pageattn_args *args)
{
    switch (fuzz_int(input, 0, 11)) {
    case 0:
        args->attn_scale = wrong_float(input);
        break;
    case 1:
        args->attn_logits_soft_cap = wrong_float(input);
        break;
    case 2:
        args->mask_value = wrong_float(input);
        break;
    case 3:
        args->sliding_window = (int32_t)wrong_number(input, args->sliding_window);
        break;
    case 4:
        args->max_context_len = wrong_number(input, args->max_context_len);
        break;
    case 5:
        args->numerics = (pageattn_numerics)fuzz_int(input, 0, 3);
        break;
    case 6:
        args->num_splits = (int32_t)wrong_number(input, args->num_splits);
        break;
    case 7:
        args->pages_per_compute_block = (int32_t)wrong_number(input, args->pages_per_compute_block);
        break;
    case 8:
        args->megacore_mode = (pageattn_megacore_mode)fuzz_int(input, 0, 4);
        break;
    case 9:
        args->inline_seq_dim = (int32_t)wrong_number(input, args->inline_seq_dim);
        break;
    case 10:
        args->struct_size = (size_t)wrong_number(input, (int64_t)args->struct_size);
        break;
    case 11:
        args->lse.type = PAGEATTN_NO_TYPE;
        break;
    }
}

/* An entry of context_lens or block_tables, as they lie when they are right. */
static void wrong_entry(fuzz_input *input, const pageattn_tensor *right, const region *memory)
{
    const int64_t count = right->shape[0] * (right->rank == 2 ? right->shape[1] : 1);
    const int64_t place = fuzz_int(input, 0, 255);
    int32_t *entry = (int32_t *)right->data + (count > 0 ? place % count : 0);
    if (count > 0 && (char *)entry >= memory->begin && (char *)(entry + 1) <= memory->end)
        *entry = (int32_t)wrong_number(input, *entry);
}

#define LENT_BYTES (64 << 10)

/* Scratch lent by the caller: enough and right, or not. */
static void lend_scratch(fuzz_input *input, pageattn_args *args)
{
    static _Alignas(PAGEATTN_SCRATCH_ALIGNMENT) char lent[LENT_BYTES];
    args->scratch = lent;
    args->scratch_bytes = LENT_BYTES;
    switch (fuzz_int(input, 0, 3)) {
    case 1:
        args->scratch = lent + fuzz_int(input, 0, 64);
        args->scratch_bytes -= 64;
        break;
    case 2:
        args->scratch_bytes = (size_t)fuzz_int(input, 0, LENT_BYTES - 1);
        break;
    case 3: /* larger than any address, or lent to nobody */
        args->scratch_bytes = (size_t)wrong_number(input, 0);
        args->scratch = args->scratch_bytes > LENT_BYTES / 2 ? lent : NULL;
        break;
    }
}

static void make_wrong(fuzz_input *input, const pageattn_args *right, paged_case *paged)
{
    switch (fuzz_int(input, 0, 5)) {
    case 0:
        wrong_tensor(input, &paged->args);
        break;
    case 1:
        wrong_size(input, &paged->args);
        break;
    case 2:
        wrong_option(input, &paged->args);
        break;
    case 3:
        wrong_entry(input, &right->context_lens, &paged->lens);
        break;
    case 4:
        wrong_entry(input, &right->block_tables, &paged->tables);
        break;
    case 5:
        lend_scratch(input, &paged->args);
        break;
    }
}

/* ---- can it be tried? ---- */

/* Only what a right call uses has memory. A wrong one that claims a little more shall find it. */
static void back_whole(region *memory, int is_output)
{
    const int64_t page = page_round(1);
    if (memory->bytes > 1 << 18)
        return;
    memory->begin = memory->base + page;
    memory->end = memory->base + memory->bytes - page;
    const size_t length = (size_t)(memory->end - memory->begin);
    mprotect(memory->begin, length, PROT_READ | PROT_WRITE);
    if (is_output)
        memset(memory->begin, UNTOUCHED, length);
}

/* Whether the memory that a tensor claims is its own. A caller may claim memory that is not there,
 * and the library must believe it: such a call proves nothing. */
static int is_backed(paged_case *paged, int which)
{
    const pageattn_tensor *tensor = judge_tensor(&paged->args, which);
    const region *memory = region_of(paged, which);
    judge_int low, high;
    if (!judge_is_wanted(&paged->args, which) || judge_is_empty(tensor))
        return 1;
    judge_span(tensor, &low, &high);
    return (judge_int)(uintptr_t)tensor->data + low >= (judge_int)(uintptr_t)memory->begin &&
           (judge_int)(uintptr_t)tensor->data + high <= (judge_int)(uintptr_t)memory->end;
}

static int scratch_is_backed(const pageattn_args *args)
{
    return args->scratch == NULL || args->scratch_bytes <= LENT_BYTES;
}

static int64_t num_tokens(const pageattn_args *args)
{
    int64_t tokens = 0;
    for (int64_t seq = 0; seq < args->query.shape[0]; seq++)
        tokens += judge_len(args, seq) > 0 ? judge_len(args, seq) : 0;
    return tokens;
}

enum verdict { RIGHT, WRONG, UNKNOWN };

/* UNKNOWN: the call cannot be made here. */
static enum verdict judge(paged_case *paged, const char **why)
{
    const pageattn_args *args = &paged->args;
    if ((*why = judge_description(args)) != NULL || (*why = judge_memory(args)) != NULL)
        return WRONG;
    if (!is_backed(paged, LENS) || !is_backed(paged, TABLES) || !scratch_is_backed(args) ||
        num_tokens(args) > MAX_TOKENS)
        return UNKNOWN;
    if ((*why = judge_values(args)) != NULL)
        return WRONG;
    for (int i = 0; i < NUM_TENSORS; i++)
        if (!is_backed(paged, i))
            return UNKNOWN;
    const int64_t work =
        num_tokens(args) * args->query.shape[1] * (args->query.shape[2] + args->out.shape[2]);
    return work > 4 * MAX_WORK ? UNKNOWN : RIGHT;
}

/* ---- what must hold ---- */

static void require_refusal(pageattn_status status, const pageattn_error *error)
{
    const size_t length = strnlen(error->message, sizeof(error->message));
    FUZZ_REQUIRE(error->status == status, "status %d, in the error %d", (int)status,
                 (int)error->status);
    FUZZ_REQUIRE(length > 0 && length < sizeof(error->message), "length %zu", length);
    for (size_t i = 0; i < length; i++)
        FUZZ_REQUIRE(error->message[i] >= ' ' && error->message[i] <= '~', "%s", error->message);
}

static void require_untouched(paged_case *paged, const char *when)
{
    FUZZ_REQUIRE(region_is_untouched(&paged->out), "%s", when);
    FUZZ_REQUIRE(region_is_untouched(&paged->lse), "%s", when);
}

/* The scratch that the call needs, or SIZE_MAX if it cannot be had. */
static size_t require_scratch_bytes(const pageattn_context *context, const pageattn_args *args)
{
    pageattn_error error;
    size_t bytes = 0;
    const char *wrong = judge_description(args);
    const pageattn_status status = pageattn_scratch_bytes(context, args, &bytes, &error);
    if (status == PAGEATTN_OK) {
        FUZZ_REQUIRE(wrong == NULL, "scratch_bytes takes a wrong %s", wrong);
        return bytes;
    }
    require_refusal(status, &error);
    FUZZ_REQUIRE(wrong != NULL || status == PAGEATTN_ERROR_OVERFLOW, "scratch_bytes: %s",
                 error.message);
    return SIZE_MAX;
}

/* A right call fails only for want of scratch: of the library's own, or lent. */
static void require_reason(const pageattn_args *args, size_t needed, const pageattn_error *error)
{
    const int misaligned = (uintptr_t)args->scratch % PAGEATTN_SCRATCH_ALIGNMENT != 0;
    switch (error->status) {
    case PAGEATTN_ERROR_MEMORY:
        FUZZ_REQUIRE(args->scratch == NULL && needed > MAX_ALLOCATION, "%s", error->message);
        break;
    case PAGEATTN_ERROR_OVERFLOW:
        FUZZ_REQUIRE(needed == SIZE_MAX, "%s", error->message);
        break;
    case PAGEATTN_ERROR_SCRATCH:
        FUZZ_REQUIRE(args->scratch != NULL && (misaligned || args->scratch_bytes < needed), "%s",
                     error->message);
        break;
    default:
        FUZZ_REQUIRE(0, "a right call was refused: %s", error->message);
    }
}

/* ---- comparing with the reference ---- */

typedef struct exact_result {
    double *out;
    double *lse;
} exact_result;

/* Of a case with one thing changed, the mathematics is another, and so is the bound: this one only
 * tells the right row from a wrong one. Data are below 4. */
static double wide_bound(const pageattn_args *args)
{
    const double scale =
        args->attn_scale == PAGEATTN_DEFAULT_ATTN_SCALE ? 1 : fabs((double)args->attn_scale);
    const double largest_logit = 16 * scale * (double)args->query.shape[2];
    const int fast = args->numerics == PAGEATTN_NUMERICS_FAST;
    return 4 * fmin(2, (fast ? 0.01 : 1e-5) * fmax(1, largest_logit));
}

/* A value of infinity times a weight below the smallest float, but not below the smallest double.
 */
static int infinity_met_zero(pageattn_type type, const char *element, double exact)
{
    return isinf(exact) && isnan(decode(type, element));
}

static void require_row(paged_case *paged, int is_changed, int64_t place, int64_t head,
                        const double *exact, double exact_lse)
{
    const pageattn_args *args = &paged->args;
    const logical_case *logical = paged->logical;
    const double wide = wide_bound(args);
    const int64_t seq = is_changed ? 0 : paged->where.order[place];
    const double bound = is_changed ? wide : LUCK * out_bound(logical, seq, head);
    const char *out = row_at(&args->out, place, head);
    for (int64_t d = 0; d < args->out.shape[2]; d++, out += type_bytes(args->out.type))
        FUZZ_REQUIRE(element_agrees(args->out.type, out, exact[d], bound) ||
                         infinity_met_zero(args->out.type, out, exact[d]),
                     "out[%lld][%lld][%lld] = %.9g, exactly %.9g, allowed +-%.3g", (long long)place,
                     (long long)head, (long long)d, decode(args->out.type, out), exact[d], bound);
    if (args->lse.type == PAGEATTN_NO_TYPE)
        return;
    float lse;
    memcpy(&lse, row_at(&args->lse, place, head), sizeof(lse));
    const double allowed = is_changed ? wide + 1e-5 * (isfinite(exact_lse) ? fabs(exact_lse) : 0)
                                      : LUCK * lse_bound(logical, seq, head, exact_lse);
    FUZZ_REQUIRE(lse_agrees(lse, exact_lse, allowed),
                 "lse[%lld][%lld] = %.9g, exactly %.9g, allowed +-%.3g", (long long)place,
                 (long long)head, (double)lse, exact_lse, allowed);
}

/* Whether float32 can hold what is on the way; the reference is float64. Floats taken for another
 * type are of any size. A scaled query that underflows to 0 makes a NaN of an infinite key, which
 * the reference only caps. */
static int is_comparable(const paged_case *paged)
{
    const pageattn_args *args = &paged->args;
    const logical_case *logical = paged->logical;
    const float scale = fabsf(args->attn_scale);
    if (args->query.type != logical->query_type || args->key_cache.type != logical->kv_type)
        return 0;
    return args->attn_scale == PAGEATTN_DEFAULT_ATTN_SCALE || scale == 0 ||
           (scale > 1e-31f && scale < 1e6f);
}

static void compare_rows(paged_case *paged, int is_changed, const exact_result *exact)
{
    const pageattn_args *args = &paged->args;
    const int64_t num_heads = args->out.shape[1], dim = args->out.shape[2];
    for (int64_t row = 0; is_comparable(paged) && row < args->out.shape[0] * num_heads; row++)
        require_row(paged, is_changed, row / num_heads, row % num_heads, exact->out + row * dim,
                    exact->lse[row]);
}

/* The rows go back to what they were, and nothing between them has changed. */
static void require_gaps_untouched(paged_case *paged)
{
    const pageattn_args *args = &paged->args;
    for (int64_t i = 0; i < args->out.shape[0]; i++)
        for (int64_t h = 0; h < args->out.shape[1]; h++) {
            memset(row_at(&args->out, i, h), UNTOUCHED,
                   (size_t)(args->out.shape[2] * type_bytes(args->out.type)));
            if (args->lse.type != PAGEATTN_NO_TYPE)
                memset(row_at(&args->lse, i, h), UNTOUCHED, sizeof(float));
        }
    require_untouched(paged, "between the rows");
}

static void require_reference(paged_case *paged, enum verdict verdict, exact_result *exact)
{
    pageattn_error error;
    const pageattn_tensor *out = &paged->args.out;
    *exact = (exact_result){0};
    if (verdict == RIGHT) {
        const size_t rows = (size_t)(out->shape[0] * out->shape[1]);
        exact->out = check_allocate(rows * (size_t)out->shape[2] * sizeof(double));
        exact->lse = check_allocate(rows * sizeof(double));
    }
    const pageattn_status status = pageattn_reference(&paged->args, exact->out, exact->lse, &error);
    FUZZ_REQUIRE((status == PAGEATTN_OK) == (verdict == RIGHT), "reference: %d", (int)status);
    if (verdict == WRONG)
        require_refusal(status, &error);
    require_untouched(paged, "by the reference");
}

/* ---- one execution ---- */

static void try_call(paged_case *paged, int is_changed, pageattn_context *context)
{
    const char *why = NULL;
    pageattn_error error;
    exact_result exact;
    const enum verdict verdict = judge(paged, &why);
    const size_t needed = require_scratch_bytes(context, &paged->args);
    if (verdict == UNKNOWN)
        return;
    require_reference(paged, verdict, &exact);
    const pageattn_status status = pageattn_attend(context, &paged->args, &error);
    if (status != PAGEATTN_OK) {
        require_refusal(status, &error);
        require_untouched(paged, error.message);
        if (verdict == RIGHT)
            require_reason(&paged->args, needed, &error);
    } else {
        FUZZ_REQUIRE(verdict == RIGHT, "taken, but wrong: %s", why);
        FUZZ_REQUIRE(error.status == PAGEATTN_OK && error.message[0] == '\0', "%s", error.message);
        compare_rows(paged, is_changed, &exact);
        require_gaps_untouched(paged);
    }
    free(exact.out);
    free(exact.lse);
}

static void forbid_writing(paged_case *paged)
{
    for (int i = QUERY; i < OUT; i++) {
        const region *memory = region_of(paged, i);
        if (memory->begin < memory->end)
            mprotect(memory->begin, (size_t)(memory->end - memory->begin), PROT_READ);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t num_bytes)
{
    static const double specials[] = {NAN, INFINITY, -INFINITY, 0, -0.0, 4};
    fuzz_input input = {bytes, bytes + num_bytes};
    logical_case logical;
    placement where;
    paged_case paged;
    const int64_t isa = choose_isa(&input);
    const int64_t crew = fuzz_int(&input, 0, NUM_CREWS - 1);
    const int64_t num_wrong = fuzz_int(&input, 0, 3);
    uint8_t wrongs[24] = {0};
    for (size_t i = 0; i < sizeof(wrongs); i++)
        wrongs[i] = num_wrong > 0 ? (uint8_t)fuzz_byte(&input) : 0;
    choose_logical(&input, specials, COUNT_OF(specials), &logical);
    choose_placement(&input, &logical, &where);
    paged_build(&logical, &where, &paged);
    choose_steering(&input, &paged.args);
    fuzz_input mistakes = {wrongs, wrongs + sizeof(wrongs)};
    for (int i = QUERY; i < NUM_TENSORS && num_wrong > 0; i++)
        back_whole(region_of(&paged, i), i >= OUT);
    const pageattn_args right = paged.args;
    for (int64_t i = 0; i < num_wrong; i++)
        make_wrong(&mistakes, &right, &paged);
    forbid_writing(&paged);
    try_call(&paged, num_wrong > 0, context_of(isa, crew));
    paged_free(&paged);
    logical_free(&logical);
    return 0;
}

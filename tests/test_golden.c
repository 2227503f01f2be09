/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bits of today are the bits of tomorrow: hashes of the outputs of fixed calls, on every
 * instruction set; those of fast numerics where a CPU has them. A change of the arithmetic is a
 * change of the interface; whoever means one runs this with -v, and replaces the hashes in the
 * commit that says so.
 *
 * With PAGEATTN_TEST_REDUCED=1 in the environment a third of the calls is tried; with PAGEATTN_ISA
 * that instruction set only.
 *
 * The inputs are made with integer arithmetic only, so that no C library has a say in them.
 */
#include <stdbool.h>

#include <pageattn/pageattn.h>

#include "check.h"

enum { NUM_SEQS = 3, NUM_KV_HEADS = 2, PAGE_SIZE = 16, MAX_BLOCKS = 80, NUM_PAGES = 3 * 80 };

typedef struct golden_case {
    const char *name;
    uint64_t hash;
    pageattn_type query_type;
    pageattn_type kv_type;
    pageattn_type out_type;
    int32_t group_size;
    int32_t head_dim;
    int32_t value_head_dim;
    int32_t window;
    float soft_cap;
    float mask_value;
    pageattn_kv_layout layout;
    pageattn_numerics numerics;
} golden_case;

#define F32 PAGEATTN_F32
#define BF16 PAGEATTN_BF16
#define F16 PAGEATTN_F16
#define HARD PAGEATTN_DEFAULT_MASK_VALUE
#define HND_PAGES PAGEATTN_HND_PAGES
#define PAGES_HND PAGEATTN_PAGES_HND
#define PAGES_NHD PAGEATTN_PAGES_NHD
#define EXACT PAGEATTN_NUMERICS_EXACT
#define FAST PAGEATTN_NUMERICS_FAST

static const golden_case cases[] = {
    {"f32", 0x71d6a8199a7d7da5u, F32, F32, F32, 4, 128, 128, 0, 0, HARD, HND_PAGES, EXACT},
    {"bf16", 0xc419394ebbb5a8d2u, BF16, BF16, BF16, 4, 128, 128, 0, 0, HARD, HND_PAGES, EXACT},
    {"f16", 0x793202819f75cd3eu, F16, F16, F16, 4, 128, 128, 0, 0, HARD, HND_PAGES, EXACT},
    {"f32 over bf16", 0xb136cc0e8b762b1bu, F32, BF16, F32, 8, 64, 64, 0, 0, HARD, HND_PAGES, EXACT},
    {"f32 over f16, 3 heads of 80", 0x84d4577bc6e21311u, F32, F16, F32, 3, 80, 80, 0, 0, HARD,
     HND_PAGES, EXACT},
    {"soft cap", 0x656e497ec5a6ebb5u, F32, BF16, F32, 2, 256, 256, 0, 30, HARD, HND_PAGES, EXACT},
    {"window", 0x0adc3942f15418bcu, F32, BF16, F32, 7, 96, 96, 333, 0, HARD, HND_PAGES, EXACT},
    {"soft mask", 0x2f0b4f66f04352a0u, F32, F32, F32, 1, 40, 72, 100, 0, -2.5f, HND_PAGES, EXACT},
    {"head_dim 1", 0x0d9644f400c90e5du, F32, F32, F32, 1, 1, 1, 0, 0, HARD, HND_PAGES, EXACT},
    {"values shorter than keys", 0x07fdac8b825b3d05u, BF16, BF16, F32, 16, 192, 128, 0, 50, HARD,
     HND_PAGES, EXACT},
    {"f32, 7 heads of 256, pages_hnd", 0xbd397179390dfa3du, F32, F32, F32, 7, 256, 256, 0, 0, HARD,
     PAGES_HND, EXACT},
    {"f32, 4 heads of 80, window and soft cap, pages_nhd", 0x4a8b829842f18c30u, F32, F32, F32, 4,
     80, 80, 200, 30, HARD, PAGES_NHD, EXACT},
    {"f32, 8 heads of 128, window", 0x521dfa108990e25eu, F32, F32, F32, 8, 128, 128, 300, 0, HARD,
     HND_PAGES, EXACT},
    {"f32, 71 heads of 64, soft cap", 0x744be8d09807d6eeu, F32, F32, F32, 71, 64, 64, 0, 50, HARD,
     HND_PAGES, EXACT},
    {"f32, 3 heads of 64, pages_nhd", 0x14140b18a7c8a916u, F32, F32, F32, 3, 64, 64, 0, 0, HARD,
     PAGES_NHD, EXACT},
    {"bf16, 8 heads of 128, pages_nhd", 0x016ac87bd34decf4u, BF16, BF16, BF16, 8, 128, 128, 0, 0,
     HARD, PAGES_NHD, EXACT},
    {"bf16, 71 heads of 64, pages_hnd", 0x7702831aae03b949u, BF16, BF16, BF16, 71, 64, 64, 0, 0,
     HARD, PAGES_HND, EXACT},
    {"bf16, 1 head of 80, soft cap, pages_nhd", 0x1d92f3a8458b0d4bu, BF16, BF16, BF16, 1, 80, 80, 0,
     30, HARD, PAGES_NHD, EXACT},
    {"bf16, 2 heads of 256, window and soft cap", 0x81820fa251db270cu, BF16, BF16, BF16, 2, 256,
     256, 500, 50, HARD, HND_PAGES, EXACT},
    {"bf16, 3 heads of 64, window, pages_hnd", 0xb5f0ee16d964f73du, BF16, BF16, BF16, 3, 64, 64,
     257, 0, HARD, PAGES_HND, EXACT},
    {"bf16, 7 heads of 256", 0xf7a5be9443d23d4au, BF16, BF16, BF16, 7, 256, 256, 0, 0, HARD,
     HND_PAGES, EXACT},
    {"f16, 1 head of 256, window, pages_nhd", 0xca66ea34e9fa9571u, F16, F16, F16, 1, 256, 256, 300,
     0, HARD, PAGES_NHD, EXACT},
    {"f16, 3 heads of 64, soft cap, pages_hnd", 0xacf2f8c51b9ee6c2u, F16, F16, F16, 3, 64, 64, 0,
     50, HARD, PAGES_HND, EXACT},
    {"f16, 7 heads of 128, pages_nhd", 0xf2c40e2fded82619u, F16, F16, F16, 7, 128, 128, 0, 0, HARD,
     PAGES_NHD, EXACT},
    {"f16, 8 heads of 80, window and soft cap", 0x7cc1fc696d5fc311u, F16, F16, F16, 8, 80, 80, 700,
     20, HARD, HND_PAGES, EXACT},
    {"f16, 71 heads of 64", 0x916b16a44cc41f06u, F16, F16, F16, 71, 64, 64, 0, 0, HARD, HND_PAGES,
     EXACT},
    {"fast", 0xd35a9bdff273d2a6u, BF16, BF16, BF16, 4, 128, 128, 0, 0, HARD, HND_PAGES, FAST},
    {"fast, 1 head of 64, pages_nhd", 0x618cd35ca64d9d8fu, BF16, BF16, BF16, 1, 64, 64, 0, 0, HARD,
     PAGES_NHD, FAST},
    {"fast, 3 heads of 80, pages_hnd", 0x27fd594049c2a3cfu, BF16, BF16, F32, 3, 80, 80, 0, 0, HARD,
     PAGES_HND, FAST},
    {"fast, 7 heads of 256, window", 0x6fd079cfbeca4c40u, BF16, BF16, F32, 7, 256, 256, 333, 0,
     HARD, HND_PAGES, FAST},
    {"fast, 8 heads of 128, soft cap, pages_nhd", 0xa1c0a3ddb484e4c0u, BF16, BF16, F32, 8, 128, 128,
     0, 30, HARD, PAGES_NHD, FAST},
    {"fast, 71 heads of 64", 0x1e7724937f028791u, BF16, BF16, BF16, 71, 64, 64, 0, 0, HARD,
     HND_PAGES, FAST},
    {"fast, f32 query", 0xc9eb0c523d8be45du, F32, BF16, F32, 4, 128, 128, 0, 0, HARD, HND_PAGES,
     FAST},
    {"fast, f16 query, values shorter than keys", 0x1515d276ee5d1831u, F16, BF16, F16, 2, 192, 40,
     257, 50, HARD, PAGES_HND, FAST},
    {"fast, soft mask", 0x9a98c755e0d57edeu, BF16, BF16, F32, 5, 72, 72, 100, 0, -2.5f, HND_PAGES,
     FAST},
};
#define NUM_CASES (sizeof(cases) / sizeof(*cases))

static int64_t bytes_of(pageattn_type type)
{
    return type == F32 ? 4 : 2;
}

/* steps / 64 as f16, for steps of at most 7 bits: always normal, or zero. */
static uint16_t half_of(int64_t steps)
{
    const int64_t size = steps < 0 ? -steps : steps;
    int exponent = 0;
    if (size == 0)
        return 0;
    while (size >> (exponent + 1) != 0)
        exponent++;
    return (uint16_t)((steps < 0 ? 0x8000 : 0) | (exponent - 6 + 15) << 10 |
                      ((size << (10 - exponent)) & 0x3ff));
}

/* Multiples of 1/64 in (-2, 2) are exact in every type. */
static void put_number(uint64_t *random, pageattn_type type, char *place)
{
    const int64_t steps = check_random_int(random, -127, 127);
    const float number = (float)steps / 64;
    const uint16_t half = half_of(steps);
    uint32_t bits;
    memcpy(&bits, &number, 4);
    const uint16_t upper = (uint16_t)(bits >> 16);
    if (type == F32)
        memcpy(place, &number, 4);
    else
        memcpy(place, type == BF16 ? &upper : &half, 2);
}

static char *random_numbers(uint64_t *random, pageattn_type type, int64_t count)
{
    char *numbers = check_allocate((size_t)(count * bytes_of(type)));
    for (int64_t i = 0; i < count; i++)
        put_number(random, type, numbers + i * bytes_of(type));
    return numbers;
}

/* The bits of element i. */
static uint32_t bits_of(pageattn_type type, const void *numbers, int64_t i)
{
    uint16_t half;
    uint32_t bits;
    if (type == F32) {
        memcpy(&bits, (const char *)numbers + 4 * i, 4);
        return bits;
    }
    memcpy(&half, (const char *)numbers + 2 * i, 2);
    return half;
}

/* FNV-1a (Fowler, Noll, Vo), 64 bits, over the numbers' bits from the low ones on: the same
 * whichever byte a processor stores first. */
static uint64_t hash_of(uint64_t hash, pageattn_type type, const void *numbers, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = bits_of(type, numbers, i);
        for (int64_t byte = 0; byte < bytes_of(type); byte++)
            hash = (hash ^ (bits >> 8 * byte & 0xff)) * 0x100000001b3u;
    }
    return hash;
}

static void test_case(const golden_case *golden, pageattn_context *context)
{
    static int32_t lens[NUM_SEQS] = {1, 700, 1280};
    int32_t tables[NUM_SEQS * MAX_BLOCKS];
    const int64_t num_heads = NUM_KV_HEADS * golden->group_size;
    const int64_t num_out = NUM_SEQS * num_heads * golden->value_head_dim;
    const int64_t num_rows = (int64_t)NUM_KV_HEADS * NUM_PAGES * PAGE_SIZE;
    uint64_t random = 20261123;
    char name[96];
    snprintf(name, sizeof(name), "%s, %s", golden->name,
             pageattn_isa_name(pageattn_context_isa(context)));

    char *query =
        random_numbers(&random, golden->query_type, NUM_SEQS * num_heads * golden->head_dim);
    char *keys = random_numbers(&random, golden->kv_type, num_rows * golden->head_dim);
    char *values = random_numbers(&random, golden->kv_type, num_rows * golden->value_head_dim);
    char *out = check_allocate((size_t)(num_out * bytes_of(golden->out_type)));
    float *lse = check_allocate((size_t)(NUM_SEQS * num_heads) * sizeof(float));
    check_random_permutation(&random, tables, NUM_PAGES);

    pageattn_args args;
    pageattn_error error;
    pageattn_args_init(&args);
    args.query =
        pageattn_tensor_3d(query, golden->query_type, NUM_SEQS, num_heads, golden->head_dim);
    args.key_cache = pageattn_cache(keys, golden->kv_type, golden->layout, NUM_KV_HEADS, NUM_PAGES,
                                    PAGE_SIZE, golden->head_dim);
    args.value_cache = pageattn_cache(values, golden->kv_type, golden->layout, NUM_KV_HEADS,
                                      NUM_PAGES, PAGE_SIZE, golden->value_head_dim);
    args.context_lens = pageattn_tensor_1d(lens, PAGEATTN_I32, NUM_SEQS);
    args.block_tables = pageattn_tensor_2d(tables, PAGEATTN_I32, NUM_SEQS, MAX_BLOCKS);
    args.out =
        pageattn_tensor_3d(out, golden->out_type, NUM_SEQS, num_heads, golden->value_head_dim);
    args.lse = pageattn_tensor_2d(lse, F32, NUM_SEQS, num_heads);
    args.sliding_window = golden->window;
    args.attn_logits_soft_cap = golden->soft_cap;
    args.mask_value = golden->mask_value;
    args.numerics = golden->numerics;

    const pageattn_status status = pageattn_attend(context, &args, &error);
    uint64_t hash = hash_of(0xcbf29ce484222325u, golden->out_type, out, num_out);
    hash = hash_of(hash, F32, lse, NUM_SEQS * num_heads);
    if (status != PAGEATTN_OK)
        check_failed(name, "%s", error.message);
    else if (hash != golden->hash)
        check_failed(name, "the hash is 0x%016llx, not 0x%016llx", (unsigned long long)hash,
                     (unsigned long long)golden->hash);
    else
        check_passed(name);
    free(query), free(keys), free(values), free(out), free(lse);
}

/* Where fast has no arithmetic of its own it gives the bits of exact, which have their own cases.
 * Returns how many cases were fast. */
static int test_cases(pageattn_context *context)
{
    const size_t step = getenv("PAGEATTN_TEST_REDUCED") ? 3 : 1;
    int num_fast = 0;
    for (size_t i = step - 1; i < NUM_CASES; i += step) {
        const bool fast = cases[i].numerics == FAST;
        if (fast && !pageattn_context_has_fast(context, cases[i].kv_type))
            continue;
        test_case(&cases[i], context);
        num_fast += fast;
    }
    return num_fast;
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    const char *only = getenv("PAGEATTN_ISA");
    int num_fast = 0;
    for (int isa = PAGEATTN_ISA_SCALAR; pageattn_isa_name((pageattn_isa)isa) != NULL; isa++) {
        pageattn_context_options options;
        pageattn_context *context;
        pageattn_error error;
        if (!pageattn_isa_available((pageattn_isa)isa) ||
            (only != NULL && strcmp(only, pageattn_isa_name((pageattn_isa)isa)) != 0))
            continue;
        pageattn_context_options_init(&options);
        options.isa = (pageattn_isa)isa;
        if (pageattn_context_create(&options, &context, &error) != PAGEATTN_OK) {
            check_failed(pageattn_isa_name((pageattn_isa)isa), "%s", error.message);
            continue;
        }
        num_fast += test_cases(context);
        pageattn_context_destroy(context);
    }
    if (num_fast == 0)
        printf("skipped: the hashes of fast numerics; this CPU, this build or PAGEATTN_ISA has "
               "none\n");
    return check_finish();
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One fixed call, to be run under an instruction counter (tests/test_instructions.sh): the count of
 * what pageattn_attend executes depends on neither the machine's load nor its memory.
 *
 *     instructions ISA KV_TYPE GROUP HEAD_DIM PAGE_SIZE
 *     instructions fast KV_TYPE GROUP HEAD_DIM PAGE_SIZE    fast numerics on the CPU's best
 *
 * Prints the bytes of keys and values that the call attends to.
 */
#include <pageattn/pageattn.h>

#include "check.h"

enum { NUM_TOKENS = 512 };

static int64_t number(const char *text)
{
    return strtoll(text, NULL, 10);
}

static pageattn_isa isa_named(const char *name)
{
    for (int isa = PAGEATTN_ISA_SCALAR; pageattn_isa_name((pageattn_isa)isa) != NULL; isa++)
        if (strcmp(name, pageattn_isa_name((pageattn_isa)isa)) == 0)
            return (pageattn_isa)isa;
    fprintf(stderr, "instructions: %s is no instruction set\n", name);
    exit(2);
}

static pageattn_type type_named(const char *name)
{
    return strcmp(name, "f32") == 0    ? PAGEATTN_F32
           : strcmp(name, "bf16") == 0 ? PAGEATTN_BF16
                                       : PAGEATTN_F16;
}

/* Bytes below 0x3c in every place are finite numbers of any type. */
static void *random_cache(uint64_t *random, int64_t bytes)
{
    unsigned char *cache = check_allocate((size_t)bytes);
    for (int64_t i = 0; i < bytes; i++)
        cache[i] = (unsigned char)(check_random(random) % 0x3c);
    return cache;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: instructions ISA KV_TYPE GROUP HEAD_DIM PAGE_SIZE\n");
        return 2;
    }
    const pageattn_type type = type_named(argv[2]);
    const int64_t group = number(argv[3]), head_dim = number(argv[4]), page_size = number(argv[5]);
    const int64_t num_pages = NUM_TOKENS / page_size;
    const int64_t bytes = NUM_TOKENS * head_dim * (type == PAGEATTN_F32 ? 4 : 2);

    uint64_t random = 1;
    int32_t *pages = check_allocate((size_t)num_pages * sizeof(int32_t));
    int32_t len = NUM_TOKENS;
    float *query = check_allocate((size_t)(group * head_dim) * sizeof(float));
    float *out = check_allocate((size_t)(group * head_dim) * sizeof(float));
    for (int64_t i = 0; i < group * head_dim; i++)
        query[i] = (float)check_random_normal(&random);
    check_random_permutation(&random, pages, num_pages);

    pageattn_args args;
    pageattn_args_init(&args);
    args.query = pageattn_tensor_3d(query, PAGEATTN_F32, 1, group, head_dim);
    args.key_cache = pageattn_cache(random_cache(&random, bytes), type, PAGEATTN_HND_PAGES, 1,
                                    num_pages, page_size, head_dim);
    args.value_cache = pageattn_cache(random_cache(&random, bytes), type, PAGEATTN_HND_PAGES, 1,
                                      num_pages, page_size, head_dim);
    args.context_lens = pageattn_tensor_1d(&len, PAGEATTN_I32, 1);
    args.block_tables = pageattn_tensor_2d(pages, PAGEATTN_I32, 1, num_pages);
    args.out = pageattn_tensor_3d(out, PAGEATTN_F32, 1, group, head_dim);

    const int fast = strcmp(argv[1], "fast") == 0;
    pageattn_context_options options;
    pageattn_context *context;
    pageattn_error error;
    pageattn_context_options_init(&options);
    options.isa = fast ? PAGEATTN_ISA_AUTO : isa_named(argv[1]);
    options.num_threads = 1;
    args.numerics = fast ? PAGEATTN_NUMERICS_FAST : PAGEATTN_NUMERICS_EXACT;
    if (pageattn_context_create(&options, &context, &error) != PAGEATTN_OK) {
        fprintf(stderr, "instructions: %s\n", error.message);
        return 1;
    }
    if (fast && !pageattn_context_has_fast(context, type)) {
        fprintf(stderr, "instructions: this CPU has no fast arithmetic for %s\n", argv[2]);
        return 1;
    }
    if (pageattn_attend(context, &args, &error) != PAGEATTN_OK) {
        fprintf(stderr, "instructions: %s\n", error.message);
        return 1;
    }
    pageattn_context_destroy(context);
    printf("%lld\n", (long long)(2 * bytes));
    return 0;
}

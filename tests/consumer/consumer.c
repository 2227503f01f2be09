/* SPDX-License-Identifier: Apache-2.0 */
/* Uses an installed pageattn: one query that finds the third of three tokens. */
#include <pageattn/pageattn.h>
#include <stdio.h>
#include <string.h>

static int check(pageattn_status status, const pageattn_error *error)
{
    if (status != PAGEATTN_OK)
        fprintf(stderr, "consumer: %s\n", error->message);
    return status == PAGEATTN_OK;
}

static int attend(pageattn_context *context, float *out)
{
    float query[] = {100, 0};
    float keys[] = {1, 0, 1, 0, 0, 1, 0, 1}; /* page 0: tokens 2, 3; page 1: tokens 0, 1 */
    float values[] = {5, 6, 9, 9, 1, 2, 3, 4};
    int32_t context_lens[] = {3};
    int32_t block_tables[] = {1, 0};

    pageattn_args args;
    pageattn_error error;
    pageattn_args_init(&args);
    args.query = pageattn_tensor_3d(query, PAGEATTN_F32, 1, 1, 2);
    args.key_cache = pageattn_cache(keys, PAGEATTN_F32, PAGEATTN_HND_PAGES, 1, 2, 2, 2);
    args.value_cache = pageattn_cache(values, PAGEATTN_F32, PAGEATTN_HND_PAGES, 1, 2, 2, 2);
    args.context_lens = pageattn_tensor_1d(context_lens, PAGEATTN_I32, 1);
    args.block_tables = pageattn_tensor_2d(block_tables, PAGEATTN_I32, 1, 2);
    args.out = pageattn_tensor_3d(out, PAGEATTN_F32, 1, 1, 2);
    return check(pageattn_attend(context, &args, &error), &error);
}

int main(void)
{
    pageattn_context *context = NULL;
    pageattn_error error;
    float out[2] = {0, 0};
    if (!check(pageattn_context_create(NULL, &context, &error), &error))
        return 1;
    int done = attend(context, out);
    pageattn_context_destroy(context);
    printf("pageattn %s: %g %g\n", pageattn_version(), (double)out[0], (double)out[1]);
    return done && out[0] == 5 && out[1] == 6 ? 0 : 1;
}

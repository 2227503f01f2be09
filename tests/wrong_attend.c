/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands between the program pageattn and the library. From call number PAGEATTN_TEST_WRONG_CALL
 * on, counted from 1, it changes the lowest bit of the exponent of the result's last element.
 * 0: never.
 */
#include <stdlib.h>

#include <pageattn/pageattn.h>

pageattn_status __real_pageattn_attend(pageattn_context *context, const pageattn_args *args,
                                       pageattn_error *error);
pageattn_status __wrap_pageattn_attend(pageattn_context *context, const pageattn_args *args,
                                       pageattn_error *error);

static void change(const pageattn_tensor *out)
{
    const int64_t last = out->shape[0] * out->shape[1] * out->shape[2] - 1;
    if (out->type == PAGEATTN_F32)
        ((uint32_t *)out->data)[last] ^= (uint32_t)1 << 23;
    else
        ((uint16_t *)out->data)[last] ^= out->type == PAGEATTN_BF16 ? 1 << 7 : 1 << 10;
}

pageattn_status __wrap_pageattn_attend(pageattn_context *context, const pageattn_args *args,
                                       pageattn_error *error)
{
    static int num_calls;
    const char *wrong_call = getenv("PAGEATTN_TEST_WRONG_CALL");
    const pageattn_status status = __real_pageattn_attend(context, args, error);
    if (wrong_call != NULL && ++num_calls >= atoi(wrong_call) && atoi(wrong_call) > 0)
        change(&args->out);
    return status;
}

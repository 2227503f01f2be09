/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a call's result is right, before anybody asks how fast it was. */
#ifndef CLI_VERIFY_H
#define CLI_VERIFY_H

#include "data.h"

/* Calls once, and compares rows of the output with pageattn_reference. False, with a sentence on
 * standard error, if they differ. The output stays as it is, for cli_verify_same. */
bool cli_verify(const cli_data *data, pageattn_context *context);

/* The output as bytes, to be compared with that of later calls: the bits never change. NULL if
 * there is no memory for it. */
void *cli_verify_keep(const cli_data *data);

/* False, with a sentence, if the output is not the kept one. */
bool cli_verify_same(const cli_data *data, const void *kept);

#endif

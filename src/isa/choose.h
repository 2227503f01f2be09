/* SPDX-License-Identifier: Apache-2.0 */
/* Which instruction set a context takes. */
#ifndef PAGEATTN_ISA_CHOOSE_H
#define PAGEATTN_ISA_CHOOSE_H

#include <pageattn/pageattn.h>

/* `wanted` itself; for PAGEATTN_ISA_AUTO the one that the environment variable PAGEATTN_ISA names,
 * or the best. *isa is available on success. Errors: ARGUMENT (no such value) and ISA. */
pageattn_status pageattn_choose_isa(pageattn_isa wanted, pageattn_isa *isa, pageattn_error *error);

#endif

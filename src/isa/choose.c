/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which instruction set a context takes: what its options say, else the environment variable
 * PAGEATTN_ISA, else the best. A wish that can't be granted is an error: a benchmark or a bug
 * report that silently ran something else is worth nothing.
 */
#include "choose.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "kernel/kernels.h"

static const pageattn_isa all_isas[] = {
#define ISA(name, NAME, requirement) PAGEATTN_ISA_##NAME,
#include "isa.def"
#undef ISA
};
#define NUM_ISAS (sizeof(all_isas) / sizeof(*all_isas))

/* "scalar, avx2": for messages. */
static void list_available(char *text, size_t text_bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < NUM_ISAS; i++) {
        const char *name = pageattn_isa_name(all_isas[i]);
        if (!pageattn_isa_available(all_isas[i]) || used + strlen(name) + 3 > text_bytes)
            continue;
        used += (size_t)snprintf(text + used, text_bytes - used, "%s%s", used ? ", " : "", name);
    }
}

static pageattn_status take(pageattn_isa wanted, const char *from, pageattn_isa *isa,
                            pageattn_error *error)
{
    char available[128];
    if (pageattn_isa_available(wanted)) {
        *isa = wanted;
        return PAGEATTN_OK;
    }
    list_available(available, sizeof(available));
    return pageattn_fail(error, PAGEATTN_ERROR_ISA,
                         "%s asks for %s, which this build or this CPU lacks; available: %s", from,
                         pageattn_isa_name(wanted), available);
}

static pageattn_status take_named(const char *name, pageattn_isa *isa, pageattn_error *error)
{
    char available[128];
    for (size_t i = 0; i < NUM_ISAS; i++) {
        if (strcmp(name, pageattn_isa_name(all_isas[i])) == 0)
            return take(all_isas[i], "the environment variable PAGEATTN_ISA", isa, error);
    }
    list_available(available, sizeof(available));
    return pageattn_fail(error, PAGEATTN_ERROR_ISA,
                         "the environment variable PAGEATTN_ISA is \"%.64s\", which names no "
                         "instruction set; available: %s, or auto for the best of them",
                         name, available);
}

pageattn_status pageattn_choose_isa(pageattn_isa wanted, pageattn_isa *isa, pageattn_error *error)
{
    if (pageattn_isa_name(wanted) == NULL)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "options->isa = %d is not a value of pageattn_isa", (int)wanted);
    if (wanted != PAGEATTN_ISA_AUTO)
        return take(wanted, "options->isa", isa, error);

    // NOLINTNEXTLINE(concurrency-mt-unsafe): no library can keep others from calling setenv
    const char *name = getenv("PAGEATTN_ISA");
    if (name != NULL && name[0] != '\0' && strcmp(name, "auto") != 0)
        return take_named(name, isa, error);
    return take(pageattn_best_isa(), "the default", isa, error);
}

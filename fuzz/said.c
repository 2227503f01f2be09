/* SPDX-License-Identifier: Apache-2.0 */
/* A sentence that is empty, or that takes more than one line, is a crash. */
#include "said.h"

#include <stdarg.h>
#include <string.h>

#include "input.h"

static int num_said;

void said_reset(void)
{
    num_said = 0;
}

int said_count(void)
{
    return num_said;
}

void __wrap_cli_say(const char *format, ...);

__attribute__((format(printf, 1, 2))) void __wrap_cli_say(const char *format, ...)
{
    char sentence[4096];
    va_list values;
    va_start(values, format);
    const int length = vsnprintf(sentence, sizeof(sentence), format, values);
    va_end(values);
    FUZZ_REQUIRE(length > 0 && (size_t)length < sizeof(sentence), "%d bytes said", length);
    num_said++;
}

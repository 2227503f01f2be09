/* SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L /* isatty, fileno */

#include "say.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

/* Back to the start of the line, and erases it. No colour is ever used. */
#define CLEAR_LINE "\r\033[K"

static bool on_terminal(void)
{
    return isatty(fileno(stderr)) == 1;
}

void cli_say(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fputs(on_terminal() ? CLEAR_LINE "pageattn: " : "pageattn: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
}

void cli_progress(const char *format, ...)
{
    va_list values;
    if (!on_terminal())
        return;
    va_start(values, format);
    fputs(CLEAR_LINE, stderr);
    vfprintf(stderr, format, values);
    fflush(stderr);
    va_end(values);
}

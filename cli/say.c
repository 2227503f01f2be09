/* SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE /* isatty, fileno, ioctl */

#include "say.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Back to the start of the line, and erases it. No colour is ever used, so NO_COLOR has nothing to
 * switch off. */
#define CLEAR_LINE "\r\033[K"
#define MAX_COLUMNS 200

/* Whether standard error understands CLEAR_LINE. */
static bool on_terminal(void)
{
    const char *terminal = getenv("TERM");
    return isatty(fileno(stderr)) == 1 && terminal != NULL && strcmp(terminal, "dumb") != 0;
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

/* One less than the terminal has: a line that is full may have wrapped, and would not be erased. */
static int num_columns(void)
{
    struct winsize size;
    const bool known = ioctl(fileno(stderr), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    const int columns = known ? size.ws_col - 1 : 79;
    return columns < MAX_COLUMNS ? columns : MAX_COLUMNS;
}

void cli_progress(const char *format, ...)
{
    char line[MAX_COLUMNS + 1];
    va_list values;
    if (!on_terminal())
        return;
    va_start(values, format);
    vsnprintf(line, sizeof(line), format, values);
    va_end(values);
    fprintf(stderr, CLEAR_LINE "%.*s", num_columns(), line);
    fflush(stderr);
}

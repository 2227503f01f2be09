/* SPDX-License-Identifier: Apache-2.0 */
/* Has gnuplot draw: it is a child process that reads a script and gives an SVG. */
#ifndef CLI_GNUPLOT_H
#define CLI_GNUPLOT_H

#include <stdbool.h>
#include <stdio.h>

/* Whether gnuplot is there and starts. False, with a sentence on standard error that says what to
 * install. */
bool cli_gnuplot_check(void);

/* Runs gnuplot over the script that `write` writes. *svg, to be freed, holds a whole SVG of
 * *svg_bytes. False, with a sentence, if it could not be run or did not finish. */
bool cli_gnuplot_run(void (*write)(FILE *script, const void *arg), const void *arg, char **svg,
                     size_t *svg_bytes);

#endif

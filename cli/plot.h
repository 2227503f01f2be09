/* SPDX-License-Identifier: Apache-2.0 */
/* bench --plot: a roofline, and bandwidth against context length, as one SVG. */
#ifndef CLI_PLOT_H
#define CLI_PLOT_H

#include "report.h"

/* As many kinds of points can be told apart. */
#define CLI_PLOT_MAX_SERIES 40

typedef struct cli_plot {
    const char *path;
    const cli_environment *environment;
    const cli_row *rows; /* at least one */
    int64_t num_rows;
    bool batches_named; /* else the number of sequences comes with the lengths */
} cli_plot;

/* What can be known before anything is measured: gnuplot is there, the file can be written. False,
 * with a sentence on standard error. */
bool cli_plot_check(const char *path);

/* Draws and writes the file. False, with a sentence, and no file, if that failed. */
bool cli_plot_write(const cli_plot *plot);

#endif

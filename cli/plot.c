/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lays the drawing out and writes it as a gnuplot script. All places are computed here, in pixels,
 * so that labels can be kept from each other.
 *
 *     title
 *     1 thread     roofline | bandwidth against context length | legend
 *     2 threads    roofline | bandwidth against context length | legend
 */
#include "plot.h"

#include <stdlib.h>

#include "gnuplot.h"
#include "plot_strip.h"
#include "say.h"
#include "whole_file.h"

typedef struct drawing {
    const cli_plot *plot;
    cli_series series[CLI_PLOT_MAX_SERIES];
    int num_series;
    cli_strip *strips;
    int num_strips;
    cli_panel panel;
    double height;
} drawing;

static double strip_height(const cli_strip *s)
{
    const double legend = cli_legend_height(s) + 10 - CLI_PLOT_ABOVE_PANEL - CLI_PLOT_BELOW_PANEL +
                          2 * CLI_PLOT_LEGEND_LINE;
    return legend > CLI_PLOT_MIN_PANEL_HEIGHT ? legend : CLI_PLOT_MIN_PANEL_HEIGHT;
}

/* A strip for each number of threads, in the order in which they were measured. */
static bool find_strips(drawing *d)
{
    d->strips = calloc((size_t)d->plot->num_rows, sizeof(*d->strips));
    double *scratch = malloc((size_t)d->plot->num_rows * sizeof(*scratch));
    for (int64_t i = 0; i < d->plot->num_rows && d->strips != NULL && scratch != NULL; i++) {
        int found = 0;
        while (found < d->num_strips && !cli_strip_has(&d->strips[found], &d->plot->rows[i]))
            found++;
        if (found < d->num_strips)
            continue;
        cli_strip *new = &d->strips[d->num_strips++];
        *new = (cli_strip){.plot = d->plot,
                           .series = d->series,
                           .num_series = d->num_series,
                           .num_threads = d->plot->rows[i].num_threads,
                           .names_series = found == 0,
                           .panel = &d->panel};
        cli_strip_find_limits(new, scratch);
    }
    free(scratch);
    if (d->num_strips == 0)
        cli_say("out of memory for the plot");
    return d->num_strips > 0;
}

static void place_strips(drawing *d)
{
    double top = 0;
    d->height = CLI_PLOT_HEADER;
    for (int i = 0; i < d->num_strips; i++)
        d->height += strip_height(&d->strips[i]) + CLI_PLOT_ABOVE_PANEL + CLI_PLOT_BELOW_PANEL;
    top = d->height - CLI_PLOT_HEADER;
    for (int i = 0; i < d->num_strips; i++) {
        cli_strip *s = &d->strips[i];
        s->canvas_height = d->height;
        s->height = strip_height(s);
        s->bottom = top - CLI_PLOT_ABOVE_PANEL - s->height;
        top = s->bottom - CLI_PLOT_BELOW_PANEL;
    }
}

static void put_header(const drawing *d, FILE *out)
{
    const cli_environment *env = d->plot->environment;
    char text[2 * CLI_SERIES_BYTES], shared[CLI_SERIES_BYTES];
    cli_strip *first = &d->strips[0];
    first->out = out;
    fprintf(out,
            "set terminal svg size %d,%.0f fixed noenhanced background '#ffffff' font "
            "'sans-serif,12' name 'pageattn_bench'\n"
            "set multiplot\nunset key\nset border lc rgb '#444444'\nset tics nomirror\n"
            "set grid lc rgb '#e4e4e4' lt 1 lw 0.7\n",
            CLI_PLOT_WIDTH, d->height);
    snprintf(text, sizeof(text), "pageattn bench: %s",
             env->machine.cpu[0] ? env->machine.cpu : "unknown CPU");
    cli_put_label(first, CLI_PLOT_ROOFLINE_LEFT, d->height - 22, text, "font ',16'");
    cli_series_shared(d->plot, d->series, d->num_series, shared);
    snprintf(text, sizeof(text), "%s%sversion %s, commit %s, %s; medians over repetitions", shared,
             shared[0] ? "; " : "", env->version, env->commit, env->compiler);
    cli_put_label(first, CLI_PLOT_ROOFLINE_LEFT, d->height - 44, text, "tc rgb '#555555'");
}

static void write_script(FILE *out, const void *arg)
{
    const drawing *d = arg;
    put_header(d, out);
    for (int i = 0; i < d->num_strips; i++) {
        d->strips[i].out = out;
        cli_put_legend(&d->strips[i]);
        cli_put_roofline(&d->strips[i]);
        cli_put_bandwidth(&d->strips[i]);
    }
    fprintf(out, "unset multiplot\n");
}

bool cli_plot_check(const char *path)
{
    return cli_gnuplot_check() && cli_whole_file_check(path);
}

static bool draw(drawing *d)
{
    char *svg;
    size_t svg_bytes;
    place_strips(d);
    if (!cli_gnuplot_run(write_script, d, &svg, &svg_bytes))
        return false;
    const bool written = cli_whole_file_write(d->plot->path, svg, svg_bytes);
    free(svg);
    return written;
}

bool cli_plot_write(const cli_plot *plot)
{
    drawing *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        cli_say("out of memory for the plot");
        return false;
    }
    d->plot = plot;
    d->num_series = cli_series_find(plot, d->series);
    const bool done = find_strips(d) && draw(d);
    free(d->strips);
    free(d);
    return done;
}

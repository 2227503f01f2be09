/* SPDX-License-Identifier: Apache-2.0 */
/* The right panel of a strip: how fast calls of each context length read, below the limits. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "plot_strip.h"

#define SEQUENTIAL_COLOUR "#5b6770"
#define GATHER_COLOUR "#b07d12"

static void span_bandwidth(const cli_strip *s, cli_panel *panel)
{
    if (cli_strip_next_length(s, 0) == 0) {
        panel->x_low = panel->y_low = 1;
        panel->x_high = panel->y_high = 2;
        return;
    }
    panel->x_low = panel->y_low = HUGE_VAL;
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        const cli_row *row = &s->plot->rows[i];
        if (!cli_strip_shows(s, row))
            continue;
        cli_widen(&panel->x_low, &panel->x_high, (double)row->wanted.lengths.fixed);
        cli_widen(&panel->y_low, &panel->y_high, row->result.gb_per_s);
        cli_widen(&panel->y_low, &panel->y_high, row->result.sequential_gb_per_s);
        cli_widen(&panel->y_low, &panel->y_high, row->result.gather_gb_per_s);
    }
    const double span = panel->x_high / panel->x_low;
    panel->x_low /= 1.3 * pow(span, 0.03);
    panel->x_high *= 1.3 * pow(span, 0.1); /* the numbers of the series stand there */
    panel->y_high *= 1.3;
    panel->y_low /= 1.5;
    if (panel->y_low > panel->y_high / 10) /* so that the axis has several numbers */
        panel->y_low = panel->y_high / 10;
}

static void put_length_tics(const cli_strip *s, const cli_panel *panel)
{
    cli_tics tics;
    cli_begin_x_tics(s, &tics);
    for (int64_t length = 0; (length = cli_strip_next_length(s, length)) > 0;) {
        char text[24];
        snprintf(text, sizeof(text), "%" PRId64, length);
        cli_put_x_tic(s, panel, &tics, (double)length, text);
    }
    cli_end_x_tics(s);
}

/* Least and greatest of a limit over the series, for each length. */
static void put_band(const cli_strip *s, bool gather)
{
    for (int64_t length = 0; (length = cli_strip_next_length(s, length)) > 0;) {
        double low = HUGE_VAL, high = 0;
        for (int64_t i = 0; i < s->plot->num_rows; i++) {
            const cli_row *row = &s->plot->rows[i];
            if (cli_strip_shows(s, row) && row->wanted.lengths.fixed == length)
                cli_widen(&low, &high,
                          gather ? row->result.gather_gb_per_s : row->result.sequential_gb_per_s);
        }
        /* One length alone would be a dot: it is widened to a dash. */
        const double widths[] = {1, 1 / 1.15, 1.15};
        const bool alone =
            cli_strip_next_length(s, 0) == length && cli_strip_next_length(s, length) == 0;
        for (int i = alone; i < (alone ? 3 : 1); i++)
            fprintf(s->out, "%.9g %.9g %.9g\n", (double)length * widths[i], low, high);
    }
    fprintf(s->out, "e\n");
}

static void put_series_points(const cli_strip *s, cli_panel *panel, int series)
{
    double last_x = 0, last_y = 0;
    for (int64_t length = 0; (length = cli_strip_next_length(s, length)) > 0;) {
        for (int64_t i = 0; i < s->plot->num_rows; i++) {
            const cli_row *row = &s->plot->rows[i];
            if (!cli_strip_shows(s, row) || row->wanted.lengths.fixed != length ||
                !cli_series_has(s->plot, &s->series[series], row))
                continue;
            const double x = (double)length, y = row->result.gb_per_s;
            if (panel == NULL)
                fprintf(s->out, "%.9g %.9g\n", x, y);
            else if (last_x > 0)
                cli_panel_put_line(panel, last_x, last_y, x, y);
            if (panel != NULL)
                cli_panel_put_point(panel, x, y);
            last_x = x;
            last_y = y;
        }
    }
}

static void number_bandwidth(const cli_strip *s, cli_panel *panel)
{
    for (int i = 0; i < s->num_series; i++)
        put_series_points(s, panel, i);
    for (int i = 0; i < s->num_series; i++) {
        const cli_row *row = cli_strip_last_row(s, i, true);
        if (row != NULL)
            cli_put_number(s, panel, i, (double)row->wanted.lengths.fixed, row->result.gb_per_s);
    }
}

static void put_bandwidth_curves(const cli_strip *s)
{
    static const char *const band[2] = {SEQUENTIAL_COLOUR, GATHER_COLOUR};
    const char *comma = "plot ";
    for (int gather = 0; gather < 2; gather++) {
        fprintf(s->out,
                "%s'-' using 1:2:3 with filledcurves lc rgb '%s' fs transparent solid 0.15 "
                "noborder",
                comma, band[gather]);
        comma = ", ";
        for (int edge = 2; edge <= 3; edge++)
            fprintf(s->out, ", '-' using 1:%d with lines lw 1.4 lc rgb '%s'%s", edge, band[gather],
                    gather ? " dt (8,4)" : "");
    }
    for (int i = 0; i < s->num_series; i++) {
        if (cli_strip_last_row(s, i, true) != NULL)
            fprintf(s->out, ", '-' with linespoints pt %d ps 0.8 lw 1.6 lc rgb '%s'",
                    cli_series_shape(i), cli_series_colour(i));
    }
    fputc('\n', s->out);
    for (int gather = 0; gather < 2; gather++) {
        for (int use = 0; use < 3; use++)
            put_band(s, gather);
    }
    for (int i = 0; i < s->num_series; i++) {
        if (cli_strip_last_row(s, i, true) == NULL)
            continue;
        put_series_points(s, NULL, i);
        fprintf(s->out, "e\n");
    }
}

/* Where every case is a mixture there is nothing to draw a curve of. */
static void put_no_bandwidth(const cli_strip *s, const cli_panel *panel)
{
    cli_put_label(s, panel->left + panel->width / 2, panel->bottom + panel->height / 2,
                  "only mixtures were measured", "center");
    cli_put_label(s, panel->left + panel->width / 2,
                  panel->bottom + panel->height / 2 - CLI_PLOT_LEGEND_LINE,
                  "--context 128,1024,8192 gives curves", "center");
    fprintf(s->out, "unset xtics\nunset ytics\nplot -1\nset ytics\n");
}

void cli_put_bandwidth(const cli_strip *s)
{
    cli_panel *panel = s->panel;
    *panel = (cli_panel){.left = CLI_PLOT_BANDWIDTH_LEFT,
                         .bottom = s->bottom,
                         .width = CLI_PLOT_BANDWIDTH_WIDTH,
                         .height = s->height};
    const bool empty = cli_strip_next_length(s, 0) == 0;
    span_bandwidth(s, panel);
    cli_put_panel(s, panel, "bandwidth against context length");
    fprintf(s->out, "set xlabel 'tokens of a sequence'\nset ylabel 'keys and values, GB/s'\n");
    if (empty) {
        put_no_bandwidth(s, panel);
    } else {
        put_length_tics(s, panel);
        number_bandwidth(s, panel);
        put_bandwidth_curves(s);
    }
    fprintf(s->out, "unset label\nunset arrow\n");
}

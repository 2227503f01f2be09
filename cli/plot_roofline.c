/* SPDX-License-Identifier: Apache-2.0 */
/* The roofline of a strip: what a call computes in a second, below what its bytes would allow. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "plot_strip.h"

static double highest_peak(const cli_strip *s)
{
    double best = 0;
    for (int i = 0; i < s->num_peaks; i++)
        best = s->peaks[i].multiply_adds > best ? s->peaks[i].multiply_adds : best;
    return best;
}

static double fastest_read(const cli_strip *s)
{
    double best = 0;
    for (int i = 0; i < s->num_roofs; i++) {
        best = s->roofs[i].sequential > best ? s->roofs[i].sequential : best;
        best = s->roofs[i].gather > best ? s->roofs[i].gather : best;
    }
    return best;
}

/* All points and all corners of the roofs are inside. */
static void span_roofline(const cli_strip *s, cli_panel *panel)
{
    panel->x_low = panel->y_low = HUGE_VAL;
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        const cli_row *row = &s->plot->rows[i];
        if (!cli_strip_has(s, row))
            continue;
        cli_widen(&panel->x_low, &panel->x_high, cli_row_intensity(row));
        cli_widen(&panel->y_low, &panel->y_high, cli_row_multiply_adds(row));
    }
    for (int i = 0; i < s->num_roofs; i++) {
        cli_widen(&panel->x_low, &panel->x_high, highest_peak(s) / s->roofs[i].gather);
        cli_widen(&panel->x_low, &panel->x_high, highest_peak(s) / s->roofs[i].sequential);
        cli_widen(&panel->y_low, &panel->y_high, panel->x_low * s->roofs[i].gather);
    }
    cli_widen(&panel->y_low, &panel->y_high, highest_peak(s));
    panel->x_low /= 1.6;
    panel->x_high *= 1.8;
    panel->y_low /= 1.8;
    panel->y_high *= 1.6;
}

/* Powers of two, as fractions below 1. */
static void put_intensity_tics(const cli_strip *s, const cli_panel *panel)
{
    cli_tics tics;
    cli_begin_x_tics(s, &tics);
    for (int power = -16; power <= 16; power++) {
        char text[16];
        snprintf(text, sizeof(text), "%s%d", power < 0 ? "1/" : "", 1 << abs(power));
        cli_put_x_tic(s, panel, &tics, ldexp(1, power), text);
    }
    cli_end_x_tics(s);
}

static void put_roof_line(const cli_strip *s, cli_panel *panel, double x0, double y0, double x1,
                          double y1, const char *style)
{
    cli_panel_put_line(panel, x0, y0, x1, y1);
    cli_put_stroke(s, cli_panel_x(panel, x0), cli_panel_y(panel, y0), cli_panel_x(panel, x1),
                   cli_panel_y(panel, y1), style);
}

/* A read limit rises until the highest of the multiply-adds; those begin at the fastest read. */
static void put_roofs(const cli_strip *s, cli_panel *panel)
{
    char style[64];
    const double top = highest_peak(s);
    for (int i = 0; i < s->num_roofs; i++) {
        for (int gather = 0; gather < 2; gather++) {
            const double speed = gather ? s->roofs[i].gather : s->roofs[i].sequential;
            const double from =
                speed * panel->x_low > panel->y_low ? panel->x_low : panel->y_low / speed;
            put_roof_line(s, panel, from, from * speed, top / speed, top,
                          cli_roof_style(i, gather, style));
        }
    }
    for (int i = 0; i < s->num_peaks; i++) {
        const double y = s->peaks[i].multiply_adds;
        const double corner = y / fastest_read(s);
        put_roof_line(s, panel, corner > panel->x_low ? corner : panel->x_low, y, panel->x_high, y,
                      cli_peak_style(i, style));
    }
}

static void number_roofline(const cli_strip *s, cli_panel *panel)
{
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        const cli_row *row = &s->plot->rows[i];
        if (cli_strip_has(s, row))
            cli_panel_put_point(panel, cli_row_intensity(row), cli_row_multiply_adds(row));
    }
    for (int i = 0; i < s->num_series; i++) {
        const cli_row *row = cli_strip_last_row(s, i, false);
        if (row != NULL)
            cli_put_number(s, panel, i, cli_row_intensity(row), cli_row_multiply_adds(row));
    }
}

static void put_roofline_points(const cli_strip *s)
{
    const char *comma = "plot ";
    for (int i = 0; i < s->num_series; i++) {
        if (cli_strip_last_row(s, i, false) == NULL)
            continue;
        fprintf(s->out, "%s'-' with points pt %d ps 0.8 lc rgb '%s'", comma, cli_series_shape(i),
                cli_series_colour(i));
        comma = ", ";
    }
    fputc('\n', s->out);
    for (int i = 0; i < s->num_series; i++) {
        bool any = false;
        for (int64_t r = 0; r < s->plot->num_rows; r++) {
            const cli_row *row = &s->plot->rows[r];
            if (!cli_strip_has(s, row) || !cli_series_has(s->plot, &s->series[i], row))
                continue;
            fprintf(s->out, "%.9g %.9g\n", cli_row_intensity(row), cli_row_multiply_adds(row));
            any = true;
        }
        if (any)
            fprintf(s->out, "e\n");
    }
}

void cli_put_roofline(const cli_strip *s)
{
    cli_panel *panel = s->panel;
    *panel = (cli_panel){.left = CLI_PLOT_ROOFLINE_LEFT,
                         .bottom = s->bottom,
                         .width = CLI_PLOT_ROOFLINE_WIDTH,
                         .height = s->height};
    char title[64];
    snprintf(title, sizeof(title), "roofline, %" PRId32 " thread%s", s->num_threads,
             s->num_threads == 1 ? "" : "s");
    span_roofline(s, panel);
    cli_put_panel(s, panel, title);
    put_roofs(s, panel);
    number_roofline(s, panel);
    fprintf(s->out, "set xlabel 'multiply-adds for each byte of keys and values'\n"
                    "set ylabel 'multiply-adds, G/s'\n");
    put_intensity_tics(s, panel);
    put_roofline_points(s);
    fprintf(s->out, "unset label\nunset arrow\n");
}

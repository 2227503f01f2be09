/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One panel of a plot: where it is on the drawing, in pixels from the lower left corner, what its
 * axes span, and what is on it, so that labels find free places.
 */
#ifndef CLI_PANEL_H
#define CLI_PANEL_H

#include <stdbool.h>

#define CLI_PANEL_MAX_BOXES 4096

typedef struct cli_box {
    double left, bottom, right, top;
} cli_box;

typedef struct cli_panel {
    double left, bottom, width, height;
    double x_low, x_high; /* both axes are logarithmic */
    double y_low, y_high;
    int num_boxes; /* of points and labels, which no label covers */
    int num_steps; /* of lines, which a label covers only where it must */
    cli_box boxes[CLI_PANEL_MAX_BOXES];
    cli_box steps[CLI_PANEL_MAX_BOXES];
} cli_panel;

double cli_panel_x(const cli_panel *panel, double x);
double cli_panel_y(const cli_panel *panel, double y);

/* Tells the panel of what is drawn on it, at values of its axes. */
void cli_panel_put_point(cli_panel *panel, double x, double y);
void cli_panel_put_line(cli_panel *panel, double x0, double y0, double x1, double y1);

/* Finds a place for a label of this size beside a point, and takes it: *x, *y are the label's
 * centre, in pixels. True if it is so far away that a line to the point is needed. */
bool cli_panel_put_label(cli_panel *panel, double at_x, double at_y, double width, double height,
                         double *x, double *y);

#endif

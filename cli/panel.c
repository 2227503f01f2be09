/* SPDX-License-Identifier: Apache-2.0 */
#include "panel.h"

#include <math.h>

#define POINT_SIZE 10.0
#define LINE_STEP 6.0 /* between what is noted of a line */
#define NEAR 12.0     /* of a label's edge from a point: close enough to need no line */

double cli_panel_x(const cli_panel *panel, double x)
{
    return panel->left + panel->width * log(x / panel->x_low) / log(panel->x_high / panel->x_low);
}

double cli_panel_y(const cli_panel *panel, double y)
{
    return panel->bottom +
           panel->height * log(y / panel->y_low) / log(panel->y_high / panel->y_low);
}

static cli_box box_around(double x, double y, double width, double height)
{
    return (cli_box){x - width / 2, y - height / 2, x + width / 2, y + height / 2};
}

/* What is beyond the capacity is drawn all the same, but a label may cover it. */
static void add(cli_box *boxes, int *count, cli_box box)
{
    if (*count < CLI_PANEL_MAX_BOXES)
        boxes[(*count)++] = box;
}

void cli_panel_put_point(cli_panel *panel, double x, double y)
{
    add(panel->boxes, &panel->num_boxes,
        box_around(cli_panel_x(panel, x), cli_panel_y(panel, y), POINT_SIZE, POINT_SIZE));
}

void cli_panel_put_line(cli_panel *panel, double x0, double y0, double x1, double y1)
{
    const double left = cli_panel_x(panel, x0), bottom = cli_panel_y(panel, y0);
    const double across = cli_panel_x(panel, x1) - left, up = cli_panel_y(panel, y1) - bottom;
    const int num_steps = 1 + (int)(hypot(across, up) / LINE_STEP);
    for (int i = 0; i <= num_steps; i++) {
        const double part = (double)i / num_steps;
        add(panel->steps, &panel->num_steps,
            box_around(left + part * across, bottom + part * up, 2, 2));
    }
}

static bool is_free(const cli_box *boxes, int count, cli_box wanted)
{
    for (int i = 0; i < count; i++) {
        if (wanted.left < boxes[i].right && boxes[i].left < wanted.right &&
            wanted.bottom < boxes[i].top && boxes[i].bottom < wanted.top)
            return false;
    }
    return true;
}

static bool is_inside(const cli_panel *panel, cli_box box)
{
    return box.left > panel->left && box.right < panel->left + panel->width &&
           box.bottom > panel->bottom && box.top < panel->bottom + panel->height;
}

/* Goes round the point, farther each time; to the right first. */
static bool find_place(const cli_panel *panel, double x, double y, cli_box *label, bool over_lines)
{
    static const double turns[][2] = {{1, 0},   {-1, 0},   {0, 1},    {0, -1},
                                      {1, 1},   {-1, 1},   {1, -1},   {-1, -1},
                                      {1, 0.5}, {1, -0.5}, {-1, 0.5}, {-1, -0.5}};
    const double width = label->right - label->left, height = label->top - label->bottom;
    for (int step = 0; NEAR + 8 * step < (over_lines ? 120 : 40); step++) {
        const double far = NEAR + 8 * step;
        for (int turn = 0; turn < (int)(sizeof(turns) / sizeof(*turns)); turn++) {
            *label = box_around(x + turns[turn][0] * (far + width / 2 - 4),
                                y + turns[turn][1] * (far + height / 2 - 4), width, height);
            if (is_inside(panel, *label) && is_free(panel->boxes, panel->num_boxes, *label) &&
                (over_lines || is_free(panel->steps, panel->num_steps, *label)))
                return true;
        }
    }
    return false;
}

bool cli_panel_put_label(cli_panel *panel, double at_x, double at_y, double width, double height,
                         double *x, double *y)
{
    const double point_x = cli_panel_x(panel, at_x), point_y = cli_panel_y(panel, at_y);
    cli_box label = box_around(point_x, point_y, width, height);
    if (!find_place(panel, point_x, point_y, &label, false) &&
        !find_place(panel, point_x, point_y, &label, true))
        label = box_around(point_x, point_y + height, width, height); /* no room anywhere */
    add(panel->boxes, &panel->num_boxes, label);
    *x = (label.left + label.right) / 2;
    *y = (label.bottom + label.top) / 2;
    return hypot(*x - point_x, *y - point_y) > NEAR + (width + height) / 2;
}

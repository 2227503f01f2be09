/* SPDX-License-Identifier: Apache-2.0 */
/* Turns the caller's arguments into a problem, or says what is wrong with them. */
#ifndef PAGEATTN_CHECK_H
#define PAGEATTN_CHECK_H

#include "problem.h"

/* What of a call is looked at. */
typedef enum pageattn_check {
    PAGEATTN_CHECK_SHAPES, /* types, shapes, strides and options; no pointer is followed or judged
                            */
    PAGEATTN_CHECK_ALL,    /* also pointers, overlap, context lengths and block tables */
} pageattn_check;

pageattn_status pageattn_check_args(const pageattn_args *args, pageattn_check check,
                                    pageattn_problem *problem, pageattn_error *error);

#endif

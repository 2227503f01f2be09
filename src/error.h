/* SPDX-License-Identifier: Apache-2.0 */
/* How a wrong call is reported: a status, and a sentence for the person who must mend it. */
#ifndef PAGEATTN_ERROR_H
#define PAGEATTN_ERROR_H

#include <pageattn/pageattn.h>

/* Writes status and message into *error unless it is NULL, and returns the status. */
__attribute__((format(printf, 3, 4))) pageattn_status
pageattn_fail(pageattn_error *error, pageattn_status status, const char *format, ...);

/* PAGEATTN_ERROR_CHANGED: the check passed, and what it had seen was no longer there later. */
pageattn_status pageattn_fail_changed(pageattn_error *error);

/* Records success, and returns PAGEATTN_OK. */
pageattn_status pageattn_succeed(pageattn_error *error);

#endif

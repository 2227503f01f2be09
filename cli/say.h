/* SPDX-License-Identifier: Apache-2.0 */
/* Sentences for the person at the terminal: all of them on standard error, after "pageattn: ". */
#ifndef CLI_SAY_H
#define CLI_SAY_H

/* Exit statuses. */
#define CLI_FAILED 1 /* the work could not be done, or its result was wrong */
#define CLI_USAGE 2  /* the command line was wrong */

__attribute__((format(printf, 1, 2))) void cli_say(const char *format, ...);

/* One line that the next one overwrites, cut to the width of the terminal; nothing if standard
 * error is none, or a dumb one. "" clears it. */
__attribute__((format(printf, 1, 2))) void cli_progress(const char *format, ...);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Writes a file that is whole or not there: what was at its path stays until the new one is. */
#ifndef CLI_WHOLE_FILE_H
#define CLI_WHOLE_FILE_H

#include <stdbool.h>
#include <stddef.h>

/* Whether a file could be written at this path, as far as can be told before: nothing is changed.
 * False, with a sentence on standard error. */
bool cli_whole_file_check(const char *path);

/* A device, a pipe or a link at the path is written to as it is, since a file can't take its place.
 * False, with a sentence. */
bool cli_whole_file_write(const char *path, const char *bytes, size_t num_bytes);

#endif

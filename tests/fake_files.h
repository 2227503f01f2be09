/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and environment variables that a program makes up, in place of the system's. Linked with
 * --wrap for fopen, open, read, close and getenv; while nothing is shown, all of these reach the
 * system.
 */
#ifndef FAKE_FILES_H
#define FAKE_FILES_H

#include <stddef.h>

typedef struct fake_file {
    const char *name; /* how its path ends, or the name of a variable */
    const char *bytes;
    size_t length; /* 0: there is no such file or variable */
} fake_file;

/* From here on only these files and variables exist. A variable's bytes end with a NUL. */
void fake_files_show(const fake_file *files, size_t count);

/* The system's again. Returns how many files are open still, of those that open() opened. */
int fake_files_hide(void);

#endif

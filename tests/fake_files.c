/* SPDX-License-Identifier: Apache-2.0 */
/* One thread. What is read comes in pieces, and the first try is interrupted, as files may do. */
#define _POSIX_C_SOURCE 200809L /* fmemopen */

#include "fake_files.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

FILE *__real_fopen(const char *path, const char *mode);
int __real_open(const char *path, int flags, ...);
ssize_t __real_read(int file, void *bytes, size_t count);
int __real_close(int file);
char *__real_getenv(const char *name);

FILE *__wrap_fopen(const char *path, const char *mode);
int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_read(int file, void *bytes, size_t count);
int __wrap_close(int file);
char *__wrap_getenv(const char *name);

#define FIRST_FILE 1000000
#define MAX_OPEN 8

static const fake_file *shown;
static size_t num_shown;

static struct open_file {
    const fake_file *file; /* NULL: not open */
    size_t at;
    int interrupted;
} open_files[MAX_OPEN];

void fake_files_show(const fake_file *files, size_t count)
{
    shown = files;
    num_shown = count;
}

int fake_files_hide(void)
{
    int count = 0;
    for (int i = 0; i < MAX_OPEN; i++) {
        count += open_files[i].file != NULL;
        open_files[i].file = NULL;
    }
    shown = NULL;
    num_shown = 0;
    return count;
}

static const fake_file *find(const char *path)
{
    const size_t length = strlen(path);
    for (size_t i = 0; i < num_shown; i++) {
        const size_t end = strlen(shown[i].name);
        if (length >= end && strcmp(path + length - end, shown[i].name) == 0 && shown[i].length > 0)
            return &shown[i];
    }
    errno = ENOENT;
    return NULL;
}

FILE *__wrap_fopen(const char *path, const char *mode)
{
    if (shown == NULL)
        return __real_fopen(path, mode);
    const fake_file *file = find(path);
    return file == NULL ? NULL : fmemopen((void *)(size_t)file->bytes, file->length, "rb");
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list values;
    va_start(values, flags);
    const int mode = va_arg(values, int);
    va_end(values);
    if (shown == NULL)
        return __real_open(path, flags, mode);
    const fake_file *file = find(path);
    for (int i = 0; i < MAX_OPEN && file != NULL; i++) {
        if (open_files[i].file != NULL)
            continue;
        open_files[i] = (struct open_file){.file = file};
        return FIRST_FILE + i;
    }
    return -1;
}

static ssize_t read_some(struct open_file *open, char *bytes, size_t count)
{
    const size_t left = open->file->length - open->at;
    const size_t piece = 1 + open->file->length % 61;
    if (!open->interrupted++) {
        errno = EINTR;
        return -1;
    }
    count = count < left ? count : left;
    count = count < piece ? count : piece;
    memcpy(bytes, open->file->bytes + open->at, count);
    open->at += count;
    return (ssize_t)count;
}

ssize_t __wrap_read(int file, void *bytes, size_t count)
{
    if (file < FIRST_FILE)
        return __real_read(file, bytes, count);
    return read_some(&open_files[file - FIRST_FILE], bytes, count);
}

int __wrap_close(int file)
{
    if (file < FIRST_FILE)
        return __real_close(file);
    open_files[file - FIRST_FILE].file = NULL;
    return 0;
}

char *__wrap_getenv(const char *name)
{
    if (shown == NULL)
        return __real_getenv(name);
    const fake_file *file = find(name);
    return file == NULL ? NULL : (char *)(size_t)file->bytes;
}

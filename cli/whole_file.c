/* SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L /* mkstemp, lstat */

#include "whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "say.h"

static void say_unwritable(const char *path, int error)
{
    cli_say("cannot write %s: %s", path, strerror(error));
}

/* A file can be put in the place of another file, or where nothing is. */
static bool can_be_replaced(const char *path)
{
    struct stat status;
    return lstat(path, &status) != 0 || S_ISREG(status.st_mode);
}

/* An empty file beside the path, whose name becomes *name, to be freed; -1 with errno if not. */
static int open_beside(const char *path, char **name)
{
    static const char random[] = ".XXXXXX";
    const size_t bytes = strlen(path) + sizeof(random);
    *name = malloc(bytes);
    if (*name == NULL)
        return -1;
    snprintf(*name, bytes, "%s%s", path, random);
    const int file = mkstemp(*name);
    if (file < 0) {
        const int error = errno;
        free(*name);
        errno = error;
    }
    return file;
}

bool cli_whole_file_check(const char *path)
{
    char *name;
    const bool beside = can_be_replaced(path);
    const int file = beside ? open_beside(path, &name) : open(path, O_WRONLY | O_NONBLOCK);
    if (file < 0) {
        say_unwritable(path, errno);
        return false;
    }
    close(file);
    if (beside) {
        unlink(name);
        free(name);
    }
    return true;
}

/* 0 or an errno. */
static int write_all(int file, const char *bytes, size_t num_bytes)
{
    while (num_bytes > 0) {
        const ssize_t written = write(file, bytes, num_bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return errno;
        bytes += written;
        num_bytes -= (size_t)written;
    }
    return 0;
}

/* What creating the file would have given it. */
static mode_t usual_mode(void)
{
    const mode_t mask = umask(0);
    umask(mask);
    return 0666 & ~mask;
}

static int write_beside(const char *path, const char *bytes, size_t num_bytes)
{
    char *name;
    const int file = open_beside(path, &name);
    if (file < 0)
        return errno;
    int error = write_all(file, bytes, num_bytes);
    if (error == 0 && (fchmod(file, usual_mode()) != 0 || fsync(file) != 0))
        error = errno;
    if (close(file) != 0 && error == 0)
        error = errno;
    if (error == 0 && rename(name, path) != 0)
        error = errno;
    if (error != 0)
        unlink(name);
    free(name);
    return error;
}

static int write_in_place(const char *path, const char *bytes, size_t num_bytes)
{
    const int file = open(path, O_WRONLY | O_TRUNC);
    if (file < 0)
        return errno;
    int error = write_all(file, bytes, num_bytes);
    if (close(file) != 0 && error == 0)
        error = errno;
    return error;
}

bool cli_whole_file_write(const char *path, const char *bytes, size_t num_bytes)
{
    const int error = can_be_replaced(path) ? write_beside(path, bytes, num_bytes)
                                            : write_in_place(path, bytes, num_bytes);
    if (error != 0)
        say_unwritable(path, error);
    return error == 0;
}

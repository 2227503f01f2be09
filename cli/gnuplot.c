/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No shell is in between and no name goes into the script: it comes through a pipe, and what is
 * drawn goes into memory, so nobody waits for the other and a disk can't be full.
 */
#define _GNU_SOURCE /* memfd_create, pipe2 */

#include "gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "say.h"

/* What was said when gnuplot could not be started. */
static void say_missing(int error)
{
    if (error == ENOENT)
        cli_say("--plot needs gnuplot, which is not on the PATH; Debian and Ubuntu have it in the "
                "package gnuplot-nox, others in gnuplot");
    else
        cli_say("--plot could not start gnuplot: %s", strerror(error));
}

/* Starts gnuplot with these as standard input and output; 0 or an errno. */
static int start(char *option, int input, int output, pid_t *child)
{
    char *arguments[] = {(char *)"gnuplot", option, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawnattr_init(&attributes);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE); /* which this program may be ignoring at the time */
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    const int error = posix_spawnp(child, arguments[0], &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

/* Whether the child ended well. */
static bool finish(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0) {
        if (errno == EINTR)
            continue;
        cli_say("--plot lost gnuplot: %s", strerror(errno));
        return false;
    }
    if (WIFSIGNALED(status))
        cli_say("--plot: gnuplot was ended by signal %d", WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        cli_say("--plot: gnuplot failed, with status %d", WEXITSTATUS(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool cli_gnuplot_check(void)
{
    pid_t child = -1;
    const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int error = nothing < 0 ? errno : start((char *)"--version", nothing, nothing, &child);
    if (nothing >= 0)
        close(nothing);
    if (error == 0)
        return finish(child);
    say_missing(error);
    return false;
}

/* A gnuplot that ends early must end neither this program, by a signal, nor the talk of it: its
 * status says more than the pipe. */
static void send(int pipe, void (*write)(FILE *script, const void *arg), const void *arg)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    sigaction(SIGPIPE, &ignore, &old);
    FILE *script = fdopen(pipe, "w");
    if (script != NULL) {
        write(script, arg);
        fclose(script);
    } else {
        close(pipe);
    }
    sigaction(SIGPIPE, &old, NULL);
}

/* gnuplot does not always say that it could not write: the end tells. */
static bool is_whole(const char *svg, size_t bytes)
{
    static const char end[] = "</svg>";
    while (bytes > 0 && (svg[bytes - 1] == '\n' || svg[bytes - 1] == '\r'))
        bytes--;
    return bytes >= strlen(end) && memcmp(svg + bytes - strlen(end), end, strlen(end)) == 0;
}

static bool read_back(int drawing, char **svg, size_t *svg_bytes)
{
    const off_t bytes = lseek(drawing, 0, SEEK_END);
    size_t done = 0;
    *svg = malloc(bytes > 0 ? (size_t)bytes : 1);
    while (*svg != NULL && done < (size_t)bytes) {
        const ssize_t got = pread(drawing, *svg + done, (size_t)bytes - done, (off_t)done);
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    *svg_bytes = done;
    if (*svg != NULL && is_whole(*svg, done))
        return true;
    cli_say("--plot: gnuplot gave %zu bytes, which are no whole SVG", done);
    free(*svg);
    return false;
}

static bool run_into(int drawing, void (*write)(FILE *script, const void *arg), const void *arg)
{
    int ends[2];
    pid_t child;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        cli_say("--plot could not make a pipe: %s", strerror(errno));
        return false;
    }
    const int error = start((char *)"--default-settings", ends[0], drawing, &child);
    close(ends[0]);
    if (error != 0) {
        close(ends[1]);
        say_missing(error);
        return false;
    }
    send(ends[1], write, arg);
    return finish(child);
}

bool cli_gnuplot_run(void (*write)(FILE *script, const void *arg), const void *arg, char **svg,
                     size_t *svg_bytes)
{
    const int drawing = memfd_create("pageattn plot", MFD_CLOEXEC);
    if (drawing < 0) {
        cli_say("--plot: no memory for the drawing: %s", strerror(errno));
        return false;
    }
    const bool done = run_into(drawing, write, arg) && read_back(drawing, svg, svg_bytes);
    close(drawing);
    return done;
}

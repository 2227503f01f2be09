/* SPDX-License-Identifier: Apache-2.0 */
/* The program `pageattn`: finds the subcommand, and sees to it that the output arrived. */
#define _POSIX_C_SOURCE 200809L /* SIGPIPE */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <pageattn/pageattn.h>

#include "commands.h"
#include "say.h"

static void print_help(void)
{
    printf("usage: pageattn COMMAND [ARGUMENT]...\n"
           "\n"
           "Paged grouped-query attention on CPUs.\n"
           "\n"
           "commands\n"
           "  info       version, CPU, caches, instruction sets, threads, and why these\n"
           "  bench      how fast attention is here, beside what this machine could do\n"
           "\n"
           "pageattn COMMAND --help says more. --version prints the version.\n");
}

static int run_command(int num_arguments, char **arguments)
{
    const char *command = num_arguments > 0 ? arguments[0] : "";
    if (strcmp(command, "info") == 0)
        return cli_info(num_arguments - 1, arguments + 1);
    if (strcmp(command, "bench") == 0)
        return cli_bench(num_arguments - 1, arguments + 1);
    if (strcmp(command, "--version") == 0) {
        printf("pageattn %s\n", pageattn_version());
        return 0;
    }
    if (strcmp(command, "--help") == 0 || strcmp(command, "help") == 0) {
        print_help();
        return 0;
    }
    if (*command == '\0')
        cli_say("a command is needed: info or bench; pageattn --help says more");
    else
        cli_say("unknown command %.60s; pageattn --help lists them", command);
    return CLI_USAGE;
}

int main(int argc, char **argv)
{
    /* A reader that closes the pipe ends this program quietly, even if its parent ignores SIGPIPE.
     */
    signal(SIGPIPE, SIG_DFL);
    int status = run_command(argc - 1, argv + 1);
    const int had_failed = ferror(stdout);
    errno = 0;
    if (fclose(stdout) != 0 || had_failed) {
        cli_say("cannot write to standard output%s%s", errno ? ": " : "",
                errno ? strerror(errno) : "");
        status = status ? status : CLI_FAILED;
    }
    return status;
}

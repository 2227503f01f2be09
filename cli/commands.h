/* SPDX-License-Identifier: Apache-2.0 */
/* The subcommands. Each gets the arguments after its name and returns the exit status. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

int cli_info(int num_arguments, char **arguments);
int cli_bench(int num_arguments, char **arguments);

#endif

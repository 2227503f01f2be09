/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In place of cli_say: counts what the program would have printed. Linked with --wrap=cli_say.
 */
#ifndef FUZZ_SAID_H
#define FUZZ_SAID_H

void said_reset(void);
int said_count(void);

#endif

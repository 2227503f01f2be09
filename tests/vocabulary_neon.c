/* SPDX-License-Identifier: Apache-2.0 */
/* The functions over lanes_neon.h, for the tests. */
#include "isa/lanes_neon.h"

#define VOCABULARY vocabulary_neon
#include "vocabulary_stamp.h"

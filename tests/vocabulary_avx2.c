/* SPDX-License-Identifier: Apache-2.0 */
/* The functions over lanes_avx2.h, for the tests. */
#include "isa/lanes_avx2.h"

#define VOCABULARY vocabulary_avx2
#include "vocabulary_stamp.h"

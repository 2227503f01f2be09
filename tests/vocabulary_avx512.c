/* SPDX-License-Identifier: Apache-2.0 */
/* The functions over lanes_avx512.h, for the tests. */
#include "isa/lanes_avx512.h"

#define VOCABULARY vocabulary_avx512
#include "vocabulary_stamp.h"

/* SPDX-License-Identifier: Apache-2.0 */
/* The functions over lanes_scalar.h, for the tests. */
#include "isa/lanes_scalar.h"

#define VOCABULARY vocabulary_scalar
#include "vocabulary_stamp.h"

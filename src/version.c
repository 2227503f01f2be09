/* SPDX-License-Identifier: Apache-2.0 */
/* The version of the library that runs, which need not be that of the header a caller compiled. */
#include <pageattn/pageattn.h>

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

const char *pageattn_version(void)
{
    return TEXT(PAGEATTN_VERSION_MAJOR) "." TEXT(PAGEATTN_VERSION_MINOR) "." TEXT(
        PAGEATTN_VERSION_PATCH);
}

int32_t pageattn_version_number(void)
{
    return PAGEATTN_VERSION_MAJOR * 1000000 + PAGEATTN_VERSION_MINOR * 1000 +
           PAGEATTN_VERSION_PATCH;
}

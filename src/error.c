/* SPDX-License-Identifier: Apache-2.0 */
/* Statuses and messages. A message that does not fit is cut, never written past its end. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>

pageattn_status pageattn_fail(pageattn_error *error, pageattn_status status, const char *format,
                              ...)
{
    if (error == NULL)
        return status;
    va_list values;
    va_start(values, format);
    error->status = status;
    vsnprintf(error->message, sizeof(error->message), format, values);
    va_end(values);
    return status;
}

pageattn_status pageattn_fail_changed(pageattn_error *error)
{
    return pageattn_fail(error, PAGEATTN_ERROR_CHANGED,
                         "context_lens or block_tables were right when the call began and wrong "
                         "while it ran: something changed them; they must stay as they are until "
                         "the call returns, and out and lse hold no result now");
}

pageattn_status pageattn_succeed(pageattn_error *error)
{
    if (error != NULL) {
        error->status = PAGEATTN_OK;
        error->message[0] = '\0';
    }
    return PAGEATTN_OK;
}

const char *pageattn_status_name(pageattn_status status)
{
    switch (status) {
    case PAGEATTN_OK:
        return "ok";
    case PAGEATTN_ERROR_ARGUMENT:
        return "argument";
    case PAGEATTN_ERROR_STRUCT_SIZE:
        return "struct size";
    case PAGEATTN_ERROR_TYPE:
        return "type";
    case PAGEATTN_ERROR_SHAPE:
        return "shape";
    case PAGEATTN_ERROR_STRIDE:
        return "stride";
    case PAGEATTN_ERROR_ALIGNMENT:
        return "alignment";
    case PAGEATTN_ERROR_OVERFLOW:
        return "overflow";
    case PAGEATTN_ERROR_OVERLAP:
        return "overlap";
    case PAGEATTN_ERROR_CONTEXT_LEN:
        return "context length";
    case PAGEATTN_ERROR_BLOCK_TABLE:
        return "block table";
    case PAGEATTN_ERROR_SCRATCH:
        return "scratch";
    case PAGEATTN_ERROR_ISA:
        return "instruction set";
    case PAGEATTN_ERROR_MEMORY:
        return "out of memory";
    case PAGEATTN_ERROR_THREAD:
        return "thread";
    case PAGEATTN_ERROR_BUSY:
        return "busy";
    case PAGEATTN_ERROR_EXECUTOR:
        return "executor";
    case PAGEATTN_ERROR_CHANGED:
        return "changed inputs";
    }
    return "unknown status";
}

# SPDX-License-Identifier: Apache-2.0
"""What a call from Python costs beside the work itself: python python/tests/measure_call.py

Times a tiny call as a whole and its C part alone, and takes the quickest of several rounds.
"""

import time
from typing import Any

import numpy as np
import pageattn
from pageattn import _context


def quickest_us(call: Any, rounds: int = 9, repetitions: int = 20000) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repetitions):
            call()
        best = min(best, time.perf_counter() - start)
    return best / repetitions * 1e6


def main() -> None:
    cache = np.zeros((1, 4, 2, 2), np.float32)
    query = np.zeros((1, 2, 2), np.float32)
    lens, tables = np.array([5], np.int32), np.array([[3, 0, 2]], np.int32)
    out = np.empty_like(query)
    arrays = (query, cache, cache, lens, tables)
    whole = quickest_us(lambda: pageattn.page_attention(*arrays))
    with_out = quickest_us(lambda: pageattn.page_attention(*arrays, out=out))
    # A context that no call uses meanwhile, filled with a call like the ones above.
    context = _context.take(0, 0)
    args, error = context._args_address, context._error_address
    kernel = quickest_us(lambda: _context._attend(context._handle, args, error))
    _context.give_back(context)
    print(f"page_attention             {whole:6.2f} us")
    print(f"page_attention, with out   {with_out:6.2f} us")
    print(f"of these, pageattn_attend  {kernel:6.2f} us (with 0.3 us of ctypes)")


if __name__ == "__main__":
    main()

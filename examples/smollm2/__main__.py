# SPDX-License-Identifier: Apache-2.0
"""Serves chat prompts with SmolLM2-135M-Instruct through pageattn: `python examples/smollm2`.

Options and messages for people; chat.py does the work. It is imported late, so that --help and a
sentence about a missing package need nothing installed.
"""

import argparse
import os
import signal
import sys

NAME = "smollm2"
HOW_TO_INSTALL = (
    "`make run` installs all of it into .venv, or, by hand and in the checkout, "
    "`pip install . -r examples/smollm2/requirements.txt`"
)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def text(argument: str) -> str:
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("the text is not valid UTF-8") from None
    return argument


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Serves chat prompts with SmolLM2-135M-Instruct: continuous batching over a "
        "paged cache, attention through pageattn, and a check of the log-probabilities against "
        "dense attention.",
    )
    add = parser.add_argument
    add(
        "--prompt",
        type=text,
        action="append",
        metavar="TEXT",
        help="a question of your own, in place of the built-in ones; repeat it for more",
    )
    add(
        "--max-new-tokens",
        type=positive,
        default=96,
        metavar="N",
        help="the longest answer (default: %(default)s)",
    )
    add(
        "--pages",
        type=positive,
        default=32,
        metavar="N",
        help="pages in the pool (default: %(default)s)",
    )
    add(
        "--page-size",
        type=positive,
        default=16,
        metavar="N",
        help="tokens in a page (default: %(default)s)",
    )
    add(
        "--kv-type",
        choices=["f32", "bf16", "f16"],
        default="f32",
        help="type of the cached keys and values (default: %(default)s)",
    )
    add(
        "--threads",
        type=positive,
        metavar="N",
        help="threads of the attention (default: the library decides)",
    )
    add(
        "--isa",
        choices=["scalar", "avx2", "avx512"],
        help="instruction set of the attention (default: the best there is)",
    )
    add("--no-check", action="store_true", help="leave out the comparison with dense attention")
    return parser.parse_args()


def main() -> int:
    # NumPy's matrix products wait for all of their threads every few hundred microseconds. Where
    # another program holds a core, two threads were nine times slower than one. Read at import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A reader that has seen enough (`| head`) ends the program as it ends any other.
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.stdout.reconfigure(errors="replace")
    options = parse_options()
    try:
        from chat import run
        from serve import CannotServe
        from weights import WeightsNotFound
    except ModuleNotFoundError as error:
        return fail(f"the Python package {error.name} is missing: {HOW_TO_INSTALL}")
    except ImportError as error:
        return fail(f"{error}\n{HOW_TO_INSTALL}")
    try:
        status = run(options, sys.stdout)
        sys.stdout.flush()  # here, where a full disk can still be reported
        return status
    except OSError as error:
        return fail(f"{error.filename or 'standard output'}: {error.strerror}")
    except (CannotServe, WeightsNotFound) as error:
        return fail(str(error))
    except MemoryError:
        return fail(
            "not enough memory: the model takes 1 GB, and --pages times --page-size the rest"
        )


def fail(message: str) -> int:
    print(f"{NAME}: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(f"\n{NAME}: interrupted, the answers above are all there is", file=sys.stderr)
        sys.exit(130)

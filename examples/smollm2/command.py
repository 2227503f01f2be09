# SPDX-License-Identifier: Apache-2.0
"""Options of the command line and messages for people; chat.py does the work.

The work is imported late, so that --help and a sentence about a missing package need nothing
installed.
"""

import argparse
import importlib
import os
import signal
import sys


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


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The options that every engine has."""
    parser = argparse.ArgumentParser(prog=name, description=description)
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
    add("--no-check", action="store_true", help="leave out the comparison with dense attention")
    return parser


def run_command(parser: argparse.ArgumentParser, engine_module: str, how_to_install: str) -> int:
    """Serves with the make_engine of that module, and returns the exit status."""
    # NumPy's matrix products wait for all of their threads every few hundred microseconds. Where
    # another program holds a core, two threads were nine times slower than one. Read at import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A reader that has seen enough (`| head`) ends the program as it ends any other.
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.stdout.reconfigure(errors="replace")
    options = parser.parse_args()
    try:
        outcome = _serve(options, engine_module, how_to_install)
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: interrupted, the answers above are all there is", file=sys.stderr)
        return 130
    if isinstance(outcome, str):
        print(f"{parser.prog}: {outcome}", file=sys.stderr)
        return 1
    return outcome


def _serve(options: argparse.Namespace, engine_module: str, how_to_install: str) -> int | str:
    """The exit status, or what went wrong."""
    try:
        from chat import run
        from engine import CannotServe
        from weights import WeightsNotFound

        make_engine = importlib.import_module(engine_module).make_engine
    except ModuleNotFoundError as error:
        return f"the Python package {error.name} is missing: {how_to_install}"
    except ImportError as error:
        return f"{error}\n{how_to_install}"
    try:
        status = run(options, make_engine, sys.stdout)
        sys.stdout.flush()  # here, where a full disk can still be reported
        return status
    except OSError as error:
        return f"{error.filename or 'standard output'}: {error.strerror}"
    except (CannotServe, WeightsNotFound) as error:
        return str(error)
    except MemoryError:
        return "not enough memory: the model takes 1 GB, and --pages times --page-size the rest"

# SPDX-License-Identifier: Apache-2.0
"""Serves chat prompts with SmolLM2-135M-Instruct through pageattn: `python examples/smollm2`."""

import sys

from command import make_parser, positive, run_command

parser = make_parser(
    "smollm2",
    "Serves chat prompts with SmolLM2-135M-Instruct: continuous batching over a paged cache, "
    "attention through pageattn, and a check of the log-probabilities against dense attention.",
)
parser.add_argument(
    "--threads",
    type=positive,
    metavar="N",
    help="threads of the attention (default: the library decides)",
)
parser.add_argument(
    "--isa",
    choices=["scalar", "avx2", "avx512", "neon"],
    help="instruction set of the attention (default: the best there is)",
)
HOW_TO_INSTALL = (
    "`make run` installs all of it into .venv, or, by hand and in the checkout, "
    "`pip install . -r examples/smollm2/requirements.txt`"
)

if __name__ == "__main__":
    sys.exit(run_command(parser, "numpy_engine", HOW_TO_INSTALL))

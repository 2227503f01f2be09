# SPDX-License-Identifier: Apache-2.0
"""Serves chat prompts with SmolLM2-135M-Instruct in JAX: `python examples/smollm2_jax`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "smollm2"))

from command import make_parser, run_command

parser = make_parser(
    "smollm2_jax",
    "Serves chat prompts with SmolLM2-135M-Instruct in JAX: continuous batching over a paged "
    "cache, each step one compiled program with attention through pageattn in it, and a check of "
    "the log-probabilities against dense attention in NumPy.",
)
HOW_TO_INSTALL = (
    "in the checkout, `tools/setup python jax` installs all of it into .venv, or, by hand, "
    "`pip install '.[jax]' -r examples/smollm2/requirements.txt`"
)

if __name__ == "__main__":
    sys.exit(run_command(parser, "jax_engine", HOW_TO_INSTALL))

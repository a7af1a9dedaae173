#!/usr/bin/env python
"""Measures lit_transformer beside its peers (extra ``bench``): ``python scripts/benchmark.py train --help``."""

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from bench import attention, classify, generate, loop, loss, plan, recompute, seq2seq, serve, train  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run one benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmark.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="BENCHMARK")
    train.add_parser(commands)
    seq2seq.add_parser(commands)
    classify.add_parser(commands)
    attention.add_parser(commands)
    loop.add_parser(commands)
    recompute.add_parser(commands)
    generate.add_parser(commands)
    serve.add_parser(commands)
    plan.add_parser(commands)
    loss.add_parser(commands)
    parsed = parser.parse_args(arguments)
    code: int = parsed.run(parsed)
    return code


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.engine`."""

import sys

from benchmarks.engine.cli import run_benchmark

if __name__ == "__main__":
    sys.exit(run_benchmark())

"""`python -m benchmarks.training`."""

import sys

from benchmarks.training.cli import run_benchmark

if __name__ == "__main__":
    sys.exit(run_benchmark())

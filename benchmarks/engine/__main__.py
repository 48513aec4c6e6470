"""`python -m benchmarks.engine`."""

import sys

from benchmarks.engine.cli import benchmark_command

if __name__ == "__main__":
    sys.exit(benchmark_command())

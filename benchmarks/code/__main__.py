"""`python -m benchmarks.code`."""

import sys

from benchmarks.code.cli import print_measures

if __name__ == "__main__":
    sys.exit(print_measures())

"""`python -m quietstar_infer.benchmark`."""

import sys

from quietstar_infer.benchmark.cli import main

if __name__ == "__main__":
    sys.exit(main())

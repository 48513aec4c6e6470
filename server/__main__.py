"""`python -m server MODEL [options]`."""

from server.environment import leave_process_group, set_defaults

# Before vLLM is imported, here and in each process that it starts: they run this file too.
set_defaults()

if __name__ == "__main__":
    import sys

    from server.cli import main

    sys.exit(main(sys.argv[1:]))
else:
    leave_process_group()

"""`python -m server MODEL [options]`."""

from importlib.util import find_spec

from server.environment import set_defaults

if __name__ == "__main__":
    import sys

    set_defaults()
    # multiprocessing runs the main module again in each process that it starts, found by its
    # __spec__, but skips a package's __main__: give it another module to run.
    __spec__ = find_spec("server.engine.child_process")

    from server.cli import main

    sys.exit(main(sys.argv[1:]))

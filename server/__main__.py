"""`python -m server MODEL [options]`."""

from importlib.util import find_spec

from server.environment import set_defaults

if __name__ == "__main__":
    import sys

    set_defaults()
    # multiprocessing runs the main module anew in each process that it starts, as named by its
    # __spec__, but not the __main__ of a package: it is given another one to run.
    __spec__ = find_spec("server.child")

    from server.cli import main

    sys.exit(main(sys.argv[1:]))

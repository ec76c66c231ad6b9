"""`python -m moec` is the `moec` command."""

import gc
import sys


def main() -> int:
    """The command line; an interrupt is told from the first import on."""
    gc.disable()  # imports and traces make what stays; what compiles a plan switches it on again
    try:
        from moec.cli import main

        return main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""`python -m moec` is the `moec` command."""

import sys

from moec.cli import main

sys.exit(main())

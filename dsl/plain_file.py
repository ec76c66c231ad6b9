"""Plain files: what is none, a device or a pipe, is refused before it is opened, for it may have no end."""

import errno
import os
from pathlib import Path


def plain_file(path: Path) -> Path:
    """Where the links of a path lead: to a file, or to where there is nothing. Raises OSError for a device and such."""
    target = Path(os.path.realpath(path))
    if os.path.lexists(target) and not target.is_file():
        code = errno.EISDIR if target.is_dir() else errno.ELOOP if target.is_symlink() else 0
        raise OSError(code, os.strerror(code) if code else "it is no plain file")
    return target

"""Exchanges two folders in one step, where the system can."""

import ctypes
import errno
import os
from pathlib import Path

_WORKING_FOLDER = -100
"""AT_FDCWD of Linux: paths are as seen from the working folder."""

_EXCHANGE = 2
"""RENAME_EXCHANGE of Linux."""


def exchange(one: Path, other: Path) -> bool:
    """Put each where the other is, so that at no moment either is missing; False where that cannot be done.

    Raises OSError if one is missing, or may not be moved.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2  # which Python's os does not have
    except (AttributeError, OSError, TypeError):  # a system that is not Linux
        return False
    if rename(_WORKING_FOLDER, os.fsencode(one), _WORKING_FOLDER, os.fsencode(other), _EXCHANGE) == 0:
        return True
    fault = ctypes.get_errno()
    if fault in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # a file system, or a kernel, that has no exchange
        return False
    raise OSError(fault, os.strerror(fault), str(one), None, str(other))

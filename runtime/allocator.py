"""Memory of a CPU process: freed memory is kept for the next tensor."""

import ctypes
import platform

# mallopt's parameters, from malloc.h of glibc, and the largest threshold that it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGEST = -1, -3, 1 << 25


def keep_freed_memory() -> None:
    """glibc returns large blocks to the system when they are freed, and faults in every page of the next one.

    A step frees and allocates the same sizes again and again: measured, a tenth of the time of a small layer.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_TRIM_THRESHOLD, 1 << 30)

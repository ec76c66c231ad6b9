"""Which code is neither a user's nor a job's own."""

import sysconfig

_PLACES = tuple({sysconfig.get_path(place) for place in ("stdlib", "purelib", "platlib")})


def is_installed(file: str) -> bool:
    """Is it of Python itself, of a package that was installed, or of no file at all?"""
    return file.startswith((*_PLACES, "<"))

"""The Jinja templates of a folder, laid out alike wherever text is written."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@cache
def templates(folder: Path, autoescape: bool = False) -> Environment:
    """Those in `folder`; `autoescape` for text that is HTML."""
    return Environment(
        loader=FileSystemLoader(folder),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=autoescape,
    )

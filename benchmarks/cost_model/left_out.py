"""A row of a file of published runs that is not predicted, with the reason."""


class LeftOut(ValueError):
    """What keeps a row from being predicted; the others go on."""

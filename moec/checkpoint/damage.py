"""What is wrong with a checkpoint."""


class Damage(Exception):
    """It cannot be used; the message is for the user, and names the file, and the tensor where there is one."""

"""The store of one attempt at a job: torchrun keeps its store when it restarts the processes, and all that is in it."""

import os
from contextlib import suppress

from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]

_BEGUN = "moec/begun"


def store_of_attempt(store: Store) -> Store:
    """A part of torchrun's store in which no attempt before has left anything.

    The first process to come gives it a name, and whoever ends the attempt takes that away.
    """
    name = store.compare_set(_key(), "", os.urandom(8).hex()).decode()
    return PrefixStore(f"moec/{name}", store)


def end_attempt(store: object) -> None:
    """Of this store: processes that start now begin another."""
    if isinstance(store, PrefixStore):
        with suppress(RuntimeError):
            store.underlying_store.delete_key(_key())


def set_begun(store: object, begun: bool) -> None:
    """Whether attempts after this one go on with what it saves: a job that was refused has saved nothing."""
    if isinstance(store, PrefixStore):
        if begun:
            store.underlying_store.set(_BEGUN, "")
        else:
            store.underlying_store.delete_key(_BEGUN)


def has_begun(store: object) -> bool:
    """Has an attempt before this one?"""
    return isinstance(store, PrefixStore) and store.underlying_store.check([_BEGUN])


def _key() -> str:
    """Where the name stands.

    With the number of the restart: no one takes a name away where all processes are killed at once. But several
    torchruns do not count alike, as one that comes in place of another begins anew.
    """
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"moec/attempt/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') if alone else ''}"

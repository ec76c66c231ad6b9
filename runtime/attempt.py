"""One of several attempts at a job: torchrun keeps its store when it restarts the processes, and all that is in it."""

import os
from contextlib import suppress
from dataclasses import dataclass

from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]

_RUN, _BEGUN, _SAVES = "moec/run", "moec/begun", "moec/saves"


@dataclass(frozen=True, slots=True)
class Past:
    """What the attempts before this one have come to."""

    run: str
    """The run that all of them are of: an id."""
    begun: bool = False
    """Has one begun? A job that was refused has saved nothing."""
    saves: bool = False
    """Has one said in its folder that this run saves there?"""


def store_of_attempt(store: Store) -> Store:
    """A part of torchrun's store in which no attempt before has left anything.

    The first process to come gives it a name, and whoever ends the attempt takes that away.
    """
    name = store.compare_set(_key(), "", _id()).decode()
    return PrefixStore(f"moec/{name}", store)


def end_attempt(store: object) -> None:
    """Of this store: processes that start now begin another."""
    if isinstance(store, PrefixStore):
        with suppress(RuntimeError):
            store.underlying_store.delete_key(_key())


def past_of(store: object) -> Past:
    """Of the job of this attempt."""
    if not isinstance(store, PrefixStore):
        return Past(_id())
    whole = store.underlying_store
    return Past(whole.compare_set(_RUN, "", _id()).decode(), whole.check([_BEGUN]), whole.check([_SAVES]))


def set_begun(store: object) -> None:
    """Attempts after this one go on with what this run has saved."""
    _note(store, _BEGUN)


def set_saves(store: object) -> None:
    """From here on the folder is this run's; another that saves there has come later."""
    _note(store, _SAVES)


def _note(store: object, what: str) -> None:
    if isinstance(store, PrefixStore):
        store.underlying_store.set(what, "")


def _id() -> str:
    return os.urandom(8).hex()


def _key() -> str:
    """Where the name stands.

    With the number of the restart: no one takes a name away where all processes are killed at once. But several
    torchruns do not count alike, as one that comes in place of another begins anew.
    """
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"moec/attempt/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') if alone else ''}"

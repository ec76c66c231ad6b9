"""Saves a run while it goes on: a copy at the boundary of a step, which a thread then writes.

Each rank writes its own file and leaves what the manifest is to say of it in the job's store; rank 0 waits for all and
commits. Nothing here is a collective, so ranks that save do not wait for each other.
"""

import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from moec.checkpoint.folders import commit, fresh, latest, prune, remove
from moec.checkpoint.manifest import Progress, manifest_text
from moec.runtime.checkpoint.parts import Part, file_of, joined, write_part
from moec.runtime.checkpoint.pieces import pieces_of, progress_of
from moec.runtime.checkpoint.snapshot import Snapshot
from moec.runtime.run import Run
from moec.runtime.store import Store

_LOOK = 0.02  # seconds between looks at the store


class NotSaved(Exception):
    """Why a step could not be saved; the message is for the user."""


@dataclass(frozen=True, slots=True)
class Saving:
    """When and where a run is saved, and what a manifest says of it besides."""

    folder: Path
    every: int | None  # steps; None is at the end only
    keep: int | None  # steps whose folders stay; None is all
    seed: int
    data: str
    versions: dict[str, str]
    plan: dict[str, object]


class Saver:
    """Saves one rank of a run, and on rank 0 the whole of it."""

    def __init__(self, saving: Saving, run: Run, board: Store, host: str) -> None:
        self.folder = saving.folder
        self.fault = ""
        """Why the last one was not saved, or ""."""
        self._saving = saving
        self._run = run
        self._board = board
        self._host = host
        self._saved = run.step
        self._notes: list[str] = []  # of the last save, on rank 0
        self._snapshot = Snapshot(pieces_of(run))
        self._thread: Thread | None = None

    def after_step(self) -> None:
        """Begin to save, if it is time to."""
        every = self._saving.every
        if every and self._run.step % every == 0:
            self.save()

    def save(self) -> None:
        """Begin to save the run as it is now. Waits for the save before, if that is still being written."""
        self._join()
        self._snapshot.take()
        self._saved = self._run.step
        progress = progress_of(self._run, self._saving.seed, self._saving.data)
        self._thread = Thread(target=self._write, args=(progress,), name="moec-save", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Save the last step if that has not been done, and wait until it is; raises NotSaved if it could not be."""
        if self._saved != self._run.step:
            self.save()
        self._join()
        if self.fault:
            raise NotSaved(self.fault)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, progress: Progress) -> None:
        """On a thread of its own: this rank's file, and on rank 0 all that makes them one."""
        rank, key = self._run.place.rank, f"moec/save/{progress.step}"
        folder: Path | None = None
        try:
            if rank == 0:
                folder = fresh(self.folder, progress.step)
                self._board.set(f"{key}/folder", folder.name)
            folder = self.folder / self._note(key, "folder")
            part = write_part(self._snapshot, rank, folder)
            self._board.set(f"{key}/{rank}", part.text)
            if rank == 0:
                self._commit(key, folder, progress)
            self.fault = self._note(key, "outcome")
        except (OSError, NotSaved, RuntimeError) as fault:
            why = fault.strerror if isinstance(fault, OSError) else str(fault)
            self._give_up(key, folder, f"step {progress.step} was not saved: rank {rank} on {self._host}: {why}")

    def _commit(self, key: str, folder: Path, progress: Progress) -> None:
        """Wait for what every rank says of its file, see that all are here, and make the folder count."""
        ranks = [str(rank) for rank in range(self._run.job.world_size)]
        parts = [Part.of(self._note(key, rank)) for rank in ranks]
        for note in self._notes:  # whoever has written this save has done with the one before
            self._board.delete_key(note)
        self._notes = [f"{key}/{name}" for name in ("folder", "outcome", *ranks)]
        manifest = joined(parts, progress, self._saving.versions, self._saving.plan)
        for name, file in manifest.files.items():
            if not (folder / name).is_file() or (folder / name).stat().st_size != file.bytes:
                raise NotSaved(f"{name} is not in {folder}: --save needs a folder that all machines share")
        commit(folder, manifest_text(manifest))
        prune(self.folder, self._saving.keep)
        self._board.set(f"{key}/outcome", "")

    def _note(self, key: str, name: str) -> str:
        """Wait for a note of this save, with an eye on whether it has failed elsewhere."""
        while not self._board.check([f"{key}/{name}"]):
            if self._board.check([f"{key}/outcome"]) and (fault := self._board.get(f"{key}/outcome").decode()):
                raise NotSaved(fault)
            time.sleep(_LOOK)
        return self._board.get(f"{key}/{name}").decode()

    def _give_up(self, key: str, folder: Path | None, fault: str) -> None:
        """Whoever fails first says so for all; the checkpoint before stays as it is."""
        self.fault = fault
        if self._board.add(f"{key}/faults", 1) == 1:
            self._board.set(f"{key}/outcome", fault)
            before = latest(self.folder)
            kept = f"; {before} is the last that was" if before else ""
            print(f"warning: {fault}{kept}", file=sys.stderr, flush=True)
        else:
            self.fault = self._note(key, "outcome")
        if folder is not None:
            self._clean(folder)

    def _clean(self, folder: Path) -> None:
        with suppress(OSError):
            if self._run.place.rank == 0:
                remove(folder)
            else:
                os.unlink(folder / file_of(self._run.place.rank))

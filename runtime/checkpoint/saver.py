"""Saves a run while it goes on: a copy at the boundary of a step, which a thread then writes.

Each rank writes its own file and leaves what the manifest is to say of it in the job's store; rank 0 waits for all and
commits. Nothing here is a collective, so ranks that save do not wait for each other.
"""

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moec.checkpoint.damage import Damage
from moec.checkpoint.folders import commit, fresh, latest, prune, remove, steps_below
from moec.checkpoint.manifest import Progress, manifest_text
from moec.checkpoint.owner import Owner, rival
from moec.runtime.attempt import set_saves
from moec.runtime.checkpoint.notes import SAVED, Notes, NotSaved, SavingThread
from moec.runtime.checkpoint.parts import Part, file_of, joined, write_part
from moec.runtime.checkpoint.pieces import pieces_of, progress_of
from moec.runtime.checkpoint.snapshot import Snapshot
from moec.runtime.run import Run
from moec.runtime.store import Store
from moec.runtime.words import error_text, joined_lines

_LOST = "moec/save/lost"
_LOOK = 0.5  # seconds between looks at a thread that is waited for


@dataclass(frozen=True, slots=True)
class Saving:
    """When and where a run is saved, and what a manifest says of it besides."""

    folder: Path
    every: int | None  # steps; None is at the end only
    keep: int | None  # steps whose folders stay; None is all
    run: str  # an id, the same after a restart
    seed: int
    data: str
    versions: dict[str, str]
    plan: dict[str, object]
    resumed: bool  # what lies in the folder is of this run, which goes on
    timeout: float  # seconds in which a rank that saves has to get on


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
        self._owner = Owner.made(saving.run, host)
        self._ours: set[str] | None = None  # names of folders that rank 0 may remove, since it has claimed theirs
        self._any = False
        self._saved = run.step
        self._before: Notes | None = None  # of the last that was committed, on rank 0
        self._notes: Notes | None = None  # of the last that was begun
        self._snapshot = Snapshot(pieces_of(run))
        self._thread: SavingThread | None = None
        with suppress(OSError, Damage):  # the first save tries again
            self._claim()

    @property
    def summary(self) -> list[str]:
        """Where to find what was saved, on rank 0."""
        return [f"checkpoints: {self.folder}"] if self._any else []

    def after_step(self) -> None:
        """Begin to save, if it is time to."""
        every = self._saving.every
        if every and self._run.step % every == 0:
            self.save()

    def save(self) -> None:
        """Begin to save the run as it is now. Waits for the save before, if that is still being written."""
        self._join()
        self._saved = self._run.step
        notes = Notes(self._board, self._run.step, self._run.place.rank, self._host, self._saving.timeout)
        if self._thread is not None and self._notes:  # which has its hands on the snapshot
            self._give_up(notes, notes.said(f"{self._name} still hangs in the save of step {self._notes.step}"))
            return
        self._snapshot.take()
        progress = progress_of(self._run, self._saving.seed, self._saving.data)
        self._notes = notes
        self._thread = SavingThread(notes, self._write, progress)
        self._thread.start()

    def finish(self) -> None:
        """Save the last step if that has not been done, and wait until it is; raises NotSaved if it could not be."""
        self._join()
        if self._board.check([_LOST]):
            raise NotSaved(self._board.get(_LOST).decode())
        if self._saved != self._run.step:
            self.save()
            self._join()
        if self.fault:
            raise NotSaved(self.fault)

    @property
    def _name(self) -> str:
        return f"rank {self._run.place.rank} on {self._host}"

    def _join(self) -> None:
        """Wait for the thread as long as it gets on."""
        while self._thread is not None and self._notes:
            self._thread.join(0 if self._notes.abandoned else _LOOK)
            if not self._thread.is_alive():
                self._thread = None
            elif self._notes.abandoned:
                return
            elif self._notes.still > self._saving.timeout:
                self._notes.abandoned = True
                hangs = f"has not got on with it for {self._saving.timeout:.0f} s: does {self.folder} still answer?"
                self._give_up(self._notes, self._notes.said(f"{self._name} {hangs}"))

    def _write(self, progress: Progress, notes: Notes) -> None:
        """On a thread of its own: this rank's file, and on rank 0 all that makes them one."""
        rank = self._run.place.rank
        folder: Path | None = None
        try:
            notes.beat()
            if rank == 0:
                self._check_owner(notes)
                folder = fresh(self.folder, progress.step)
                notes.leave("folder", folder.name)
            folder = self.folder / notes.wait("folder", 0)
            notes.leave(str(rank), write_part(self._snapshot, rank, folder, notes.beat).text)
            if rank == 0:
                self._commit(notes, folder, progress)
                folder = None  # which stays
            if (outcome := notes.wait("outcome", 0)) != SAVED:
                raise NotSaved(outcome)
            self.fault = self.fault if notes.abandoned else ""
        except NotSaved as fault:
            self._fail(notes, folder, str(fault))
        except BaseException as fault:  # of whatever kind: the others must not wait for this thread
            self._fail(notes, folder, notes.said(f"{self._name}: {_gist(fault)}"))

    def _commit(self, notes: Notes, folder: Path, progress: Progress) -> None:
        """Wait for what every rank says of its file, see that all are here, and make the folder count."""
        world = self._run.job.world_size
        parts = [Part.of(notes.wait(str(rank), rank)) for rank in range(world)]
        if self._before:  # whoever has written this save has done with the one before
            self._before.forget(world)
        self._before = notes
        manifest = joined(parts, progress, self._saving.versions, self._saving.plan, self._owner.run)
        for name, file in manifest.files.items():
            if not (folder / name).is_file() or (folder / name).stat().st_size != file.bytes:
                where = f"{name} is not in {folder}: --save needs a folder that all machines share"
                raise NotSaved(notes.said(f"{self._name}: {where}"))
        self._check_owner(notes)
        commit(folder, manifest_text(manifest), notes.beat)
        self._any = True
        assert self._ours is not None, "a folder that is not claimed is not written to"
        self._ours.add(folder.name)
        self._prune(notes)
        notes.conclude(SAVED)

    def _prune(self, notes: Notes) -> None:
        """That earlier ones stay is no fault of this one."""
        notes.beat()
        try:
            if not rival(self._owner.run, self.folder):
                prune(self.folder, self._saving.keep, self._ours)
        except (OSError, Damage) as fault:
            why = fault.strerror if isinstance(fault, OSError) else fault
            print(f"warning: earlier checkpoints stay in {self.folder}: {why}", file=sys.stderr, flush=True)

    def _claim(self) -> None:
        """On rank 0: say in the folder that this run saves there."""
        if self._run.place.rank == 0 and self._ours is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            ours = {path.name for path in steps_below(self.folder)} if self._saving.resumed else set[str]()
            self._owner.claim(self.folder)
            set_saves(self._board)
            self._ours = ours

    def _check_owner(self, notes: Notes) -> None:
        """Give way to another run that has come: this one ends with its step, and touches nothing more."""
        self._claim()
        other = rival(self._owner.run, self.folder)
        if other:
            fault = notes.said(f"{other}; this run ends")
            self._board.set(_LOST, fault)
            self._run.asked_to_stop = True
            raise NotSaved(fault)

    def _fail(self, notes: Notes, folder: Path | None, fault: str) -> None:
        """The thread that writes cannot: leave nothing half written."""
        if not notes.abandoned:
            self._give_up(notes, fault)
        with suppress(OSError, Damage):
            if folder is not None and self._run.place.rank == 0:
                remove(folder)
            elif folder is not None:
                os.unlink(folder / file_of(self._run.place.rank))

    def _give_up(self, notes: Notes, fault: str) -> None:
        """Whoever fails first says so for all; the checkpoint before stays as it is."""
        self.fault = fault
        with suppress(RuntimeError):  # of a store that is gone, and the job with it
            self.fault = notes.conclude(fault)
            if notes.is_first_to_tell() and not self._board.check([_LOST]):
                print(f"warning: {self.fault}{self._kept()}", file=sys.stderr, flush=True)

    def _kept(self) -> str:
        try:
            before = latest(self.folder)
        except Damage:
            before = None
        return f"; {before} is the last that was" if before else ""


def _gist(fault: BaseException) -> str:
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return joined_lines(str(fault)) if isinstance(fault, Damage) else error_text(fault)

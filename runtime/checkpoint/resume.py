"""Which checkpoint a run goes on from."""

from os.path import realpath
from pathlib import Path

from moec.checkpoint.damage import Damage
from moec.checkpoint.folders import check_can_save, chosen, is_whole, latest, real_step, step_of, steps_below
from moec.checkpoint.owner import rival
from moec.checkpoint.parse_manifest import read_manifest
from moec.checkpoint.plain_json import printable
from moec.runtime.attempt import Past
from moec.runtime.checkpoint.read import Checkpoint
from moec.runtime.checkpoint.restore import check_model
from moec.runtime.job import Job


def resumed(job: Job, resume: str | None, save: str | None, past: Past) -> Checkpoint | None:
    """The one that `--resume` names; of a job that torchrun has restarted, the latest that this run has saved.

    None if the run begins anew. Raises Damage for one that cannot be used, or if what is saved would mix with others.
    """
    if save:
        check_can_save(Path(save))
    there = latest(Path(save)) if save else None
    if save and past.saves:
        _check_owner(Path(save), past.run)
    if there is not None and past.begun and read_manifest(there).run == past.run:
        folder = there
    elif resume is not None:
        folder = chosen(Path(resume))
        _check_place(folder, there)
    elif there is not None:
        raise Damage(f"{save} holds the checkpoints of a run up to step {step_of(there)[0]}: --resume {save} goes on")
    else:
        return None
    checkpoint = Checkpoint.open(folder)
    check_model(job, checkpoint)
    return checkpoint


def _check_owner(folder: Path, run: str) -> None:
    try:
        other = rival(run, folder)
    except OSError as fault:
        raise Damage(f"--save {folder} cannot be read: {fault.strerror}") from None
    if other:
        raise Damage(f"{other}: this run, which torchrun has restarted, gives way")


def _check_place(folder: Path, there: Path | None) -> None:
    """A run that goes on saves to where it comes from, or to where nothing is. `there` is the latest in that place."""
    if there is None:
        return
    real, last = Path(realpath(folder)), step_of(there)[0]
    if str(real.parent) != realpath(there.parent):
        what = f"{there.parent} holds other checkpoints than {folder.parent}, up to step {last}"
        raise Damage(f"{what}: --resume {there.parent} goes on with those, or save elsewhere")
    if last > step_of(real)[0]:
        raise Damage(f"{there.parent} holds later checkpoints than {folder}, up to step {last}: save elsewhere")


def said(checkpoint: Checkpoint, data: str, steps: int) -> str:
    """What a user should know of the checkpoint that a run of so many steps goes on from."""
    progress, ranks = checkpoint.manifest.progress, checkpoint.manifest.plan.get("world_size")
    wrote = f", written by {ranks} ranks" if isinstance(ranks, int) else ""
    lines = [f"going on after step {progress.step}, from {checkpoint.folder}{wrote}"]
    if progress.step >= steps:
        lines.append(f"nothing is left to do: step {progress.step} is done, and --steps is {steps}")
    if progress.data != data:
        lines.append(f"warning: it was made on other data ({printable(progress.data)}), and this is {data}")
    step = real_step(checkpoint.folder)
    for path in steps_below(checkpoint.folder.parent):
        if step_of(path) > step and not is_whole(path):
            lines.append(f"warning: {path} is not whole (its save was cut off), and is passed over")
    return "\n".join(lines)


def seed_of(given: int | None, planned: int, checkpoint: Checkpoint | None) -> int:
    """That of the command line, or of the run that goes on, or of the plan; raises Damage where the first two differ.

    Another seed would read the samples in another order, and some of them twice.
    """
    if checkpoint is None:
        return planned if given is None else given
    before = checkpoint.manifest.progress.seed
    if given not in (None, before):
        raise Damage(f"{checkpoint.folder} is of a run with seed {before}, not {given}: leave --seed out")
    return before

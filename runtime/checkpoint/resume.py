"""Which checkpoint a run goes on from."""

from pathlib import Path

from moec.checkpoint.damage import Damage
from moec.checkpoint.folders import check_can_save, chosen, is_whole, latest, step_of, steps_below
from moec.runtime.checkpoint.read import Checkpoint
from moec.runtime.checkpoint.restore import check_model
from moec.runtime.job import Job


def resumed(job: Job, resume: str | None, save: str | None, restarted: bool) -> Checkpoint | None:
    """The one that `--resume` names; of a job that torchrun has restarted, the latest in the folder it saves to.

    None if the run begins anew. Raises Damage for one that cannot be used, or if what is saved would mix with others.
    """
    if save:
        check_can_save(Path(save))
    own = latest(Path(save)) if save else None
    if restarted and own is not None:
        folder = own
    elif resume is not None:
        folder = chosen(Path(resume))
    elif own is not None:
        raise Damage(f"{save} holds the checkpoints of a run up to step {step_of(own)[0]}: --resume {save} goes on")
    else:
        return None
    if own is not None and step_of(own)[0] > step_of(folder.resolve())[0]:
        raise Damage(f"{save} holds later checkpoints than {folder}, up to step {step_of(own)[0]}: save elsewhere")
    checkpoint = Checkpoint.open(folder)
    check_model(job, checkpoint)
    return checkpoint


def said(checkpoint: Checkpoint, data: str, steps: int) -> str:
    """What a user should know of the checkpoint that a run of so many steps goes on from."""
    progress, ranks = checkpoint.manifest.progress, checkpoint.manifest.plan.get("world_size")
    lines = [f"going on after step {progress.step}, from {checkpoint.folder}, written by {ranks} ranks"]
    if progress.step >= steps:
        lines.append(f"nothing is left to do: step {progress.step} is done, and --steps is {steps}")
    if progress.data != data:
        lines.append(f"warning: it was made on other data ({progress.data}), and this is {data}")
    step = step_of(checkpoint.folder.resolve())
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

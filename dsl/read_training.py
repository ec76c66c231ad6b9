"""Reads the blocks that say how training goes: `schedule`, `train` and `communicate`."""

from moec.dsl.plan import Communicate, Schedule, Train
from moec.dsl.reading import Reading
from moec.dsl.syntax import Block, Setting


def read_schedule(block: Block | None, reading: Reading) -> Schedule | None:
    """The schedule, or None with the faults reported."""
    if block is None:
        return None
    reading.only(block, (Setting,), "batch = 256")
    settings = reading.settings(block, "schedule")
    if settings is None or block.title is None:
        return None
    return Schedule(block.title.text, settings.whole("schedule.batch"), settings.whole("schedule.accumulate"))


def read_train(block: Block | None, reading: Reading) -> Train | None:
    """The optimizer, defaults where the plan is silent, or None with the faults reported."""
    if block is not None:
        reading.only(block, (Setting,), "lr = 3e-4")
    settings = reading.settings(block, "train")
    if settings is None:
        return None
    clip = settings.real_if("train.clip")
    return Train(
        optimizer=settings.word("train.optimizer"),
        lr=float(settings.real("train.lr")),
        warmup=settings.whole("train.warmup"),
        decay=settings.word("train.decay"),
        steps=settings.whole_if("train.steps"),
        final_lr=float(settings.real("train.final_lr")),
        beta1=float(settings.real("train.beta1")),
        beta2=float(settings.real("train.beta2")),
        eps=float(settings.real("train.eps")),
        weight_decay=float(settings.real("train.weight_decay")),
        decayed=settings.patterns("train.decayed"),
        undecayed=settings.patterns("train.undecayed"),
        clip=None if clip is None else float(clip),
        not_finite=settings.word("train.not_finite"),
        precision=settings.word("train.precision"),
        recompute=settings.word("train.recompute"),
        seed=settings.whole("train.seed"),
        initial=settings.word_if("train.initial"),
    )


def read_communicate(block: Block | None, reading: Reading) -> Communicate | None:
    """How collectives are coalesced; None if the plan does not say."""
    if block is None:
        return None
    reading.only(block, (Setting,), "overlap = true")
    settings = reading.settings(block, "communicate")
    if settings is None:
        return None
    return Communicate(settings.whole("communicate.batch"), settings.flag("communicate.overlap"))

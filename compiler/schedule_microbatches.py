"""Schedules as lists of instructions, one list a stage: GPipe and 1F1B."""

from collections.abc import Callable
from dataclasses import replace

from moec.compiler.program import Instruction, Program


def schedule_microbatches(program: Program) -> Program:
    """Every stage's instructions for a step.

    Requires: stages.
    Ensures:  every micro-batch runs forward and then backward once on every stage; unbuffered sends meet receives.
    """
    make = SCHEDULES[program.plan.schedule.kind]
    count, batches = len(program.stages), program.plan.schedule.accumulate
    stages = tuple(replace(stage, schedule=make(stage.index, count, batches)) for stage in program.stages)
    return replace(program, stages=stages)


def gpipe(stage: int, stages: int, batches: int) -> tuple[Instruction, ...]:
    """All micro-batches forward, then all backward (Huang et al., 2019)."""
    forward = [step for i in range(batches) for step in _forward(i)]
    backward = [step for i in range(batches) for step in _backward(i)]
    return _on_stage((*forward, *backward), stage, stages)


def one_f_one_b(stage: int, stages: int, batches: int) -> tuple[Instruction, ...]:
    """Forward until the pipeline is full, then one forward and one backward in turn (Narayanan et al., 2019).

    Between the two a stage exchanges with its neighbour, sending and receiving at once.
    """
    fill = min(stages - 1 - stage, batches)
    steady = batches - fill
    steps = [step for i in range(fill) for step in _forward(i)]
    if steady:
        steps.append(Instruction("receive", fill))
    for i in range(steady):
        last = i == steady - 1
        steps += [Instruction("forward", fill + i), Instruction("forth", fill + i), Instruction("backward", i)]
        steps.append(Instruction("send_back", i) if last else Instruction("back", i))
    steps += [step for i in range(steady, batches) for step in _backward(i)]
    return _on_stage(tuple(steps), stage, stages)


def _forward(i: int) -> tuple[Instruction, ...]:
    return Instruction("receive", i), Instruction("forward", i), Instruction("send", i)


def _backward(i: int) -> tuple[Instruction, ...]:
    return Instruction("receive_back", i), Instruction("backward", i), Instruction("send_back", i)


def _on_stage(steps: tuple[Instruction, ...], stage: int, stages: int) -> tuple[Instruction, ...]:
    """Without what the first stage has no one before it for, and the last no one after."""
    gone = {"receive", "send_back", "back"} if stage == 0 else set()
    gone |= {"send", "receive_back", "forth"} if stage == stages - 1 else set()
    return tuple(step for step in steps if step.kind not in gone)


SCHEDULES: dict[str, Callable[[int, int, int], tuple[Instruction, ...]]] = {"gpipe": gpipe, "1f1b": one_f_one_b}

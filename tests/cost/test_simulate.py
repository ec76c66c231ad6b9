"""Schedules against their closed forms: bubbles of equal stages, micro-batches in flight, and who waits for whom."""

import pytest

from moec.compiler.cost.interleave import Interleaved
from moec.compiler.cost.pass_time import PassTime
from moec.compiler.cost.simulate import Both, Message, Task, Work, simulate
from moec.compiler.program import Instruction
from moec.compiler.schedule_microbatches import SCHEDULES

FORWARD, BACKWARD = 1.0, 2.0
SIZES = [(2, 2), (2, 7), (4, 4), (4, 16), (8, 32)]


def tasks_of(stage: int, schedule: tuple[Instruction, ...]) -> list[Task]:
    """With messages that take no time."""
    found: list[Task] = []
    following: dict[str, int] = {}
    for instruction in reversed(schedule):
        found.append(_task(stage, instruction, following))
        following[instruction.kind] = instruction.index
    return found[::-1]


def _task(stage: int, instruction: Instruction, following: dict[str, int]) -> Task:
    i = instruction.index
    match instruction.kind:
        case "forward":
            return Work("forward", i, FORWARD)
        case "backward":
            return Work("backward", i, BACKWARD)
        case "send":
            return _after(stage, i, sends=True)
        case "receive":
            return _before(stage, i, sends=False)
        case "send_back":
            return Message(stage - 1, ("dx", i, 0), 0.0, True)
        case "receive_back":
            return Message(stage + 1, ("dx", i, 0), 0.0, False)
        case "forth":
            back = Message(stage + 1, ("dx", following["backward"], 0), 0.0, False)
            return Both((_after(stage, i, sends=True), back))
        case "back":
            forth = _before(stage, following["forward"], sends=False)
            return Both((Message(stage - 1, ("dx", i, 0), 0.0, True), forth))


def _after(stage: int, i: int, sends: bool) -> Message:
    return Message(stage + 1, ("x", i, 0), 0.0, sends)


def _before(stage: int, i: int, sends: bool) -> Message:
    return Message(stage - 1, ("x", i, 0), 0.0, sends)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(("stages", "batches"), SIZES)
def test_bubble_of_equal_stages(kind: str, stages: int, batches: int):
    """(p - 1) / m of the time that all micro-batches take (Huang et al., 2019; Narayanan et al., 2021)."""
    timeline = simulate([tasks_of(stage, SCHEDULES[kind](stage, stages, batches)) for stage in range(stages)])
    ideal = batches * (FORWARD + BACKWARD)
    assert max(timeline.ends) == pytest.approx(ideal * (1 + (stages - 1) / batches))
    assert timeline.waited[0] == pytest.approx((stages - 1) * (FORWARD + BACKWARD))


@pytest.mark.parametrize(("stages", "batches"), SIZES)
def test_micro_batches_in_flight(stages: int, batches: int):
    """Stage s of 1F1B holds min(p - s, m)."""
    for stage in range(stages):
        under_way = most = 0
        for instruction in SCHEDULES["1f1b"](stage, stages, batches):
            under_way += {"forward": 1, "backward": -1}.get(instruction.kind, 0)
            most = max(most, under_way)
        assert most == min(stages - stage, batches)


@pytest.mark.parametrize("slices", (2, 3, 4))
@pytest.mark.parametrize(("stages", "groups"), ((2, 1), (2, 4), (4, 1), (4, 3), (8, 2)))
def test_interleaving_divides_the_bubble(stages: int, groups: int, slices: int):
    """(p - 1) / (v m) (Narayanan et al., 2021, section 2.2.2)."""
    batches = stages * groups
    times = PassTime((), FORWARD, FORWARD, 0.0), PassTime((), BACKWARD, BACKWARD, 0.0)
    tasks = Interleaved(stages, slices, batches).tasks([times] * stages, [0.0] * stages)
    timeline = simulate(tasks, buffered=True)
    ideal = batches * (FORWARD + BACKWARD)
    assert max(timeline.ends) == pytest.approx(ideal * (1 + (stages - 1) / (slices * batches)))


def test_what_comes_before_the_layers_is_of_the_first_slice():
    times = PassTime((), 3.0, 3.0, 0.0, (1.0, 0.0)), PassTime((), 5.0, 5.0, 0.0, (0.0, 1.0))
    found = Interleaved(1, 2, 1).tasks([times], [0.0])[0]
    work = [(task.name, task.chunk, task.seconds) for task in found if isinstance(task, Work)]
    assert work == [("forward", 0, 2.0), ("forward", 1, 1.0), ("backward", 1, 2.0), ("backward", 0, 3.0)]


def test_a_message_takes_place_when_both_ends_are_there():
    early: list[Task] = [Work("forward", 0, 1.0), Message(1, ("x", 0, 0), 0.5, True), Work("forward", 1, 1.0)]
    late: list[Task] = [Work("backward", 9, 3.0), Message(0, ("x", 0, 0), 0.5, False)]
    assert simulate([early, late]).ends == [4.5, 3.5]
    assert simulate([early, late], buffered=True).ends == [2.0, 3.0]


def test_stages_that_wait_for_each_other_are_named():
    first: list[Task] = [Message(1, ("x", 0, 0), 0.0, True)]
    second: list[Task] = [Message(0, ("dx", 0, 0), 0.0, True)]
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        simulate([first, second])

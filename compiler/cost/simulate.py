"""The schedule of a step, event by event: one rank of every stage, each with a clock of its own.

What a rank does is a list: compute for so long, send, receive, or exchange with a neighbour. A send that nothing
buffers takes place when both ends are there (as in the emitted programs); one that is buffered leaves at once and
arrives later.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Work:
    """A forward or backward of a micro-batch, by one rank's slice of the model (`chunk`, where it has several)."""

    name: Literal["forward", "backward"]
    micro_batch: int
    seconds: float
    chunk: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """What goes over the boundary of two stages: sent to, or received from, a peer. `tag` tells messages apart."""

    peer: int
    tag: tuple[str, int, int]
    seconds: float
    sends: bool


@dataclass(frozen=True, slots=True)
class Both:
    """A send and a receive at once."""

    messages: tuple[Message, ...]


Task = Work | Message | Both

End = tuple[int, int, tuple[str, int, int]]
"""One end of a message: of this stage, towards that one, which message."""


@dataclass(frozen=True, slots=True)
class Span:
    """What one rank did from when to when, in seconds from the start of the step."""

    stage: int
    name: str
    micro_batch: int
    start: float
    end: float
    chunk: int = 0


@dataclass(slots=True)
class Timeline:
    """Spans of all stages in order of time, with when each stage is through."""

    spans: list[Span] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    """Of each stage: seconds in which it waited for a peer."""
    sent: list[float] = field(default_factory=list)
    """Of each stage: seconds in which a message was under way and nothing else happened."""


def simulate(tasks: Sequence[Sequence[Task]], buffered: bool = False) -> Timeline:
    """The times of all tasks; raises ValueError where stages wait for each other for ever."""
    board = _Board(buffered)
    stages = [_Stage(number, deque(each)) for number, each in enumerate(tasks)]
    able = deque(stages)
    while able:
        able.popleft().advance(board)
        able += [stages[number] for number in board.woken]
        board.woken.clear()
    if any(stage.tasks for stage in stages):
        waiting = [stage.number for stage in stages if stage.tasks]
        raise ValueError(f"the stages {waiting} wait for each other")
    board.spans.sort(key=lambda span: (span.start, span.stage))
    return Timeline(board.spans, [s.now for s in stages], [s.waited for s in stages], [s.sending for s in stages])


@dataclass(slots=True)
class _Board:
    """What all stages see: ends of messages that are posted, and who waits for which."""

    buffered: bool
    posted: dict[End, float] = field(default_factory=dict)
    waiting: dict[End, int] = field(default_factory=dict)
    woken: list[int] = field(default_factory=list)
    """Stages that waited for an end that has been posted since."""
    spans: list[Span] = field(default_factory=list)

    def post(self, end: End, now: float) -> None:
        if end not in self.posted:
            self.posted[end] = now
            if end in self.waiting:
                self.woken.append(self.waiting.pop(end))


@dataclass(slots=True)
class _Stage:
    number: int
    tasks: deque[Task]
    now: float = 0.0
    waited: float = 0.0
    sending: float = 0.0

    def advance(self, board: _Board) -> None:
        """Do what can be done, up to a message whose other end is not there."""
        while self.tasks:
            task = self.tasks[0]
            if isinstance(task, Work):
                end = self.now + task.seconds
                board.spans.append(Span(self.number, task.name, task.micro_batch, self.now, end, task.chunk))
                self.now = end
            elif not self._pass(task.messages if isinstance(task, Both) else (task,), board):
                return
            self.tasks.popleft()

    def _pass(self, messages: Sequence[Message], board: _Board) -> bool:
        """Post what this end has, and go on when the other end has too."""
        for message in messages:
            board.post((self.number, message.peer, message.tag), self.now)
        end, longest = self.now, 0.0
        for message in messages:
            if board.buffered and message.sends:
                continue
            key = message.peer, self.number, message.tag
            if key not in board.posted:
                board.waiting[key] = self.number
                return False
            other = board.posted[key]
            end = max(end, (other if board.buffered else max(self.now, other)) + message.seconds)
            longest = max(longest, message.seconds)
        self._wait(end, longest, messages[0].tag[1], board.spans)
        return True

    def _wait(self, end: float, longest: float, micro_batch: int, spans: list[Span]) -> None:
        """Until `end`; a message that takes `longest` is under way at last."""
        if end > self.now:
            under_way = min(longest, end - self.now)
            self.sending += under_way
            self.waited += end - self.now - under_way
            if end - under_way > self.now:
                spans.append(Span(self.number, "wait", micro_batch, self.now, end - under_way))
            if under_way:
                spans.append(Span(self.number, "send", micro_batch, end - under_way, end))
        self.now = end

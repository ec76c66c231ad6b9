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

Posted = dict[tuple[int, int, tuple[str, int, int]], float]
"""When one end of a message was ready: from this stage, towards that one, which message."""


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
    stages = [_Stage(number, deque(each)) for number, each in enumerate(tasks)]
    posted: Posted = {}
    spans: list[Span] = []
    moving = True
    while moving:
        known = len(posted)
        moving = any([stage.advance_all(posted, spans, buffered) for stage in stages]) or len(posted) > known
    if any(stage.tasks for stage in stages):
        waiting = [stage.number for stage in stages if stage.tasks]
        raise ValueError(f"the stages {waiting} wait for each other")
    spans.sort(key=lambda span: (span.start, span.stage))
    return Timeline(spans, [s.now for s in stages], [s.waited for s in stages], [s.sending for s in stages])


@dataclass(slots=True)
class _Stage:
    number: int
    tasks: deque[Task]
    now: float = 0.0
    waited: float = 0.0
    sending: float = 0.0

    def advance_all(self, posted: Posted, spans: list[Span], buffered: bool) -> bool:
        """Do what can be done; was there any?"""
        left = len(self.tasks)
        while self.tasks and self._advance(posted, spans, buffered):
            pass
        return len(self.tasks) < left

    def _advance(self, posted: Posted, spans: list[Span], buffered: bool) -> bool:
        """Do the next task, if it can be done."""
        task = self.tasks[0]
        if isinstance(task, Work):
            end = self.now + task.seconds
            spans.append(Span(self.number, task.name, task.micro_batch, self.now, end, task.chunk))
            self.now = end
        else:
            messages = task.messages if isinstance(task, Both) else (task,)
            if not self._pass(messages, posted, spans, buffered):
                return False
        self.tasks.popleft()
        return True

    def _pass(self, messages: Sequence[Message], posted: Posted, spans: list[Span], buffered: bool) -> bool:
        """Post what this end has, and go on when the other end has too."""
        ends = []
        longest = 0.0
        for message in messages:
            posted.setdefault((self.number, message.peer, message.tag), self.now)
        for message in messages:
            if buffered and message.sends:
                continue
            other = posted.get((message.peer, self.number, message.tag))
            if other is None:
                return False
            ends.append(max(other if buffered else max(self.now, other), 0.0) + message.seconds)
            longest = max(longest, message.seconds)
        end = max([self.now, *ends])
        if end > self.now:
            under_way = min(longest, end - self.now)
            self.sending += under_way
            self.waited += end - self.now - under_way
            spans.append(Span(self.number, "wait", messages[0].tag[1], self.now, end - under_way))
            spans.append(Span(self.number, "send", messages[0].tag[1], end - under_way, end))
        self.now = end
        return True

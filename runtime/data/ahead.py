"""The next micro-batches, read by a thread while the step runs."""

from collections import deque
from queue import SimpleQueue
from threading import Thread

from moec.runtime.data.micro_batches import Inputs, MicroBatches

THREAD = "moec-data"
"""The name of the thread."""

_PATIENCE = 5.0  # seconds that the end of a run waits for the thread


class Ahead:
    """Reads what `batches` would, up to `depth` micro-batches early. Satisfies `Reader`.

    They are asked for in a row; whoever asks for another, after a resume say, waits for it. What goes wrong in the
    thread is raised where its micro-batch is asked for, and the thread never keeps the process from ending.
    """

    def __init__(self, batches: MicroBatches, depth: int, pin: bool) -> None:
        self._batches = batches
        self._depth = depth
        self._pin = pin
        self._pending: deque[int] = deque()  # asked of the thread, in order
        self._asked: SimpleQueue[int | None] = SimpleQueue()
        self._ready: SimpleQueue[Inputs | BaseException] = SimpleQueue()
        self._thread: Thread | None = None
        self._closed = False

    def read(self, first: int) -> Inputs:
        """The inputs of the micro-batch whose first sample is `first`; the thread begins with the first call."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name=THREAD, daemon=True)
            self._thread.start()
        while self._pending and self._pending[0] != first:
            self._take()
        while len(self._pending) <= self._depth:
            self._ask(self._pending[-1] + self._batches.size if self._pending else first)
        found = self._take()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """End the thread after the micro-batch that it is at; one that ran on while Python ends could crash it."""
        self._closed = True
        self._asked.put(None)
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def _ask(self, first: int) -> None:
        self._pending.append(first)
        self._asked.put(first)

    def _take(self) -> Inputs | BaseException:
        self._pending.popleft()
        return self._ready.get()

    def _work(self) -> None:
        while (first := self._asked.get()) is not None and not self._closed:
            try:
                self._ready.put(self._prepared(first))
            except BaseException as error:  # it would end the thread, and the run would wait for ever
                self._ready.put(error)

    def _prepared(self, first: int) -> Inputs:
        inputs = self._batches.read(first)
        return {name: x.pin_memory() for name, x in inputs.items()} if self._pin else inputs

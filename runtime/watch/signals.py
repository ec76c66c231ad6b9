"""Signals to this process, as something that a thread can wait for.

A handler in Python runs only once the main thread is back from whatever it waits for. The system's own part of it,
which writes the signal's number down, runs at once.
"""

import os
import signal
from contextlib import suppress

CALLS_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Mailbox:
    """Numbers of signals as they come. Of the main thread, once in a process."""

    def __init__(self) -> None:
        self.descriptor, self._writing = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writing, False)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in CALLS_TO_END:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, _noted)

    def arrived(self) -> frozenset[int]:
        """Those that have come since."""
        with suppress(BlockingIOError):
            return frozenset(os.read(self.descriptor, 64))
        return frozenset()

    def ring(self) -> None:
        """Wake whoever waits, without a signal."""
        os.write(self._writing, b"\0")

    def close(self) -> None:
        """Signals do again what they did before."""
        signal.set_wakeup_fd(-1)
        for number in CALLS_TO_END:
            if signal.getsignal(number) is _noted:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.close(self.descriptor)
        os.close(self._writing)


def _noted(number: int, frame: object) -> None:
    """Its number is in the mailbox."""

"""Each rank watches over others, so that whatever stops a job is named once, and ends all of it."""

from moec.runtime.watch.verdict import Verdict
from moec.runtime.watch.watch import Watch

__all__ = ["Verdict", "Watch"]

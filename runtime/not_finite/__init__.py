"""Where a value that is not finite came from: the step is run once more, and every instruction of it looked at."""

from moec.runtime.not_finite.name import end_with_origin, name_origin
from moec.runtime.not_finite.origin import Origin
from moec.runtime.not_finite.replay import trace

__all__ = ["Origin", "end_with_origin", "name_origin", "trace"]

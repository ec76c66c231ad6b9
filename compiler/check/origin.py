"""Says where a call of a rank program comes from: the modules it serves, and the lines of the plan that ask for it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moec.compiler.check.execute import Call
from moec.compiler.check.groups import varied_axes
from moec.compiler.check.headers import Header
from moec.compiler.emit.stage_text import ranges_text
from moec.compiler.program import Program
from moec.dsl.plan import Shard


@dataclass(frozen=True, slots=True)
class Origins:
    """Of a rank's call, to be put behind it; nothing where nothing is known."""

    program: Program
    headers: Sequence[Header]
    texts: Mapping[str, Sequence[str]]  # lines of the files

    def __call__(self, rank: int, call: Call) -> str:
        said = [words for words in (self._modules(rank, call), self._lines(rank, call)) if words]
        return f" ({'; '.join(said)})" if said else ""

    def _modules(self, rank: int, call: Call) -> str:
        """Those whose forward or backward the call stands in."""
        if call.site is None or not call.site.file.startswith("stage_"):
            return ""
        above = reversed(self.texts.get(call.site.file, [])[: call.site.line])
        function = next((line for line in above if line.startswith("def ")), "")
        unit = re.match(r"def (\w+)_(?:forward|backward)\(", function)
        calls = self.program.stages[self.headers[rank].stage].calls
        return ranges_text([made.prefix or made.unit for made in calls if unit and made.unit == unit[1]])

    def _lines(self, rank: int, call: Call) -> str:
        """What the plan says of the axes that the call goes over."""
        plan = self.program.plan
        if call.peer >= 0:
            axes = frozenset({plan.pipeline_axis} if plan.pipeline_axis else ())
        else:
            members = self.headers[rank].groups.get(call.group)
            axes = (varied_axes(plan.mesh, members) if members else None) or frozenset()
        lines = [line for line in plan.shard if any(axes & {*plan.mesh.atoms_of(axis)} for axis in line.axes)]
        return ", ".join(_line(line) for line in lines)


def _line(line: Shard) -> str:
    said = f"`{', '.join(line.dims)} over {', '.join(line.axes)}`"
    if line.place is None:
        return said
    source, start = line.place.source, line.place.span.start
    return f"{source.path}:{source.text.count(chr(10), 0, start) + 1} {said}"

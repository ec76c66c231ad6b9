"""The plan's lines that an instruction comes from, as plan.json has them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PlanLines:
    file: str = ""
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)  # by the name that instructions give them
    stages: Sequence[int] = ()
    model: Sequence[int] = ()

    @staticmethod
    def read(folder: Path) -> "PlanLines":
        """None are known of a folder whose plan.json does not say."""
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        return PlanLines(**plan["lines"]) if "lines" in plan else PlanLines()

    def of(self, at: str) -> str:
        """` [tiny_moe.plan:12]`: of an instruction as `Sight` has it, the lines for its group, or else the model's.

        What every rank does with all others, such as to end a step, is of no line.
        """
        if not at or re.search(r"\brun\.\w+\(\)", at):
            return ""
        named = [self.groups[word] for word in re.findall(r'"(\w+)"', at) if word in self.groups]
        if not named:
            named = [self.stages if re.search(r"\b(PREVIOUS|NEXT)\b", at) else self.model]
        numbers = sorted({line for lines in named for line in lines})
        return f" [{self.file}:{', '.join(str(line) for line in numbers)}]" if numbers else ""

"""Emits the program as a folder that needs torch and moec's runtime: sizes, stages, ranks, main.py, plan.json."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from moec.compiler.emit.layout import fold_all, in_docstring, listing, paragraph
from moec.compiler.emit.plan_json import plan_json
from moec.compiler.emit.rank_text import RankWriter, schedule_text, step_lines
from moec.compiler.emit.region_text import Function
from moec.compiler.emit.sizes_text import SizeNames
from moec.compiler.emit.stage_text import StageText, ranges_text, stage_text
from moec.compiler.emit.types_text import place_text, same_count
from moec.compiler.program import Program
from moec.compiler.templates import templates
from moec.runtime.launch import rank_name

_FOLDER = Path(__file__).parent / "templates"

FULL, SMALL = 0, 1
"""The sizings of a program: the plan's own, and the small one of verify."""

MAIN = '''"""Runs one rank of {name}: torchrun --nproc-per-node {ranks} -- {folder}/main.py"""

from pathlib import Path

from moec.runtime.train import main

if __name__ == "__main__":
    main(Path(__file__).parent)
'''


def emit(
    program: Program,
    sizing: int = FULL,
    output: Path | None = None,
    double: bool = False,
    only: Iterable[int] | None = None,
) -> dict[str, str]:
    """File name -> text. The stages' files are the same in both sizings; sizes, slices and schedules are not.

    `double` makes everything float64, whatever the plan's precision is.

    A folder of the user's that the programs need is named as seen from `output`, so that both can move together.
    `only` these ranks get a file.
    """
    sizes = SizeNames(program)
    texts = [stage_text(program, sizes, stage) for stage in program.stages]
    files = {f"stage_{n}.py": _stage_file(program, sizes, text) for n, text in enumerate(texts)}
    files["sizes.py"] = _sizes_file(program, sizes, sizing, double)
    mesh = program.plan.mesh
    writers = [RankWriter(program, stage, text, sizing) for stage, text in zip(program.stages, texts, strict=True)]
    ranks = _RankFiles(program, writers)
    files |= {f"{rank_name(rank, mesh.world_size)}.py": ranks.file(rank) for rank in only or range(mesh.world_size)}
    folder = Path(program.plan.source.path).stem
    files["main.py"] = MAIN.format(
        name=in_docstring(program.plan.name), ranks=mesh.world_size, folder=f"build/{in_docstring(folder)}"
    )
    files["plan.json"] = json.dumps(plan_json(program, sizing, output, double), indent=2) + "\n"
    return files


class _RankFiles:
    """Files of all ranks; what the ranks of a stage share is made once."""

    def __init__(self, program: Program, writers: list[RankWriter]) -> None:
        self._program, self._writers = program, writers
        self._template = templates(_FOLDER).get_template("rank.py.jinja")
        self._shared = [self._stage(writer) for writer in writers]

    def file(self, rank: int) -> str:
        index = self._program.stage_of(rank)
        return self._template.render(self._shared[index] | self._writers[index].context(rank))

    def _stage(self, writer: RankWriter) -> dict[str, object]:
        program, stage = self._program, writer.stage
        count = len(program.stages)
        counter = program.counter
        layers = in_docstring(ranges_text([call.prefix for call in stage.calls if call.prefix]))
        return {
            "world": program.world_size,
            "plan": in_docstring(program.plan.name),
            "stage": stage.index,
            "stage_text": f"{place_text(program, stage)}{f', {layers}' if layers else ''}.",
            "step": fold_all(
                step_lines(stage, count, counter is not None, program.has_loss(stage), same_count(program)), 4
            ),
            "schedule_text": schedule_text(program.plan.schedule.kind, stage, count),
        }


def _stage_file(program: Program, sizes: SizeNames, text: StageText) -> str:
    functions = [_laid_out(function) for function in _in_order(text)]
    body = "\n".join([*(line for f in functions for line in f.body), str(text.weights), str(text.slots)])
    words = _words(body)
    names = sorted((n for n in ("DTYPE", "FLOAT", *sizes.whole, *sizes.parts) if n in words), key=str.lower)
    return (
        templates(_FOLDER)
        .get_template("stage.py.jinja")
        .render(
            docstring=paragraph(text.docstring, 0).rstrip(),
            uses_torch="torch" in words,
            uses_functional="F" in words,
            sizes=_import_list("sizes", names),
            imports=[(module, _import_list(module, names)) for module, names in text.imports.items()],
            weights=[(unit, _entries(rows)) for unit, rows in text.weights.items()],
            stacked=[
                (unit, [f'"{key}": {_tuple_text(parts)},' for key, parts in rows])
                for unit, rows in text.stacked.items()
            ],
            units=listing("UNITS", [f'("{unit}", {_tuple_text(prefixes)})' for unit, prefixes in text.units]),
            inputs=[(json.dumps(name), split.replace("'", '"')) for name, split in text.inputs],
            slots=[listing(name, slots) for name, slots in text.slots],
            functions=functions,
        )
    )


def _in_order(text: StageText) -> list[Function]:
    """Regions of a unit, then its forward and backward; then the stage's own."""
    found: list[Function] = []
    for unit in text.texts:
        found += [*unit.regions, unit.forward]
        found += [unit.backward] if unit.backward else []
    return [*found, *text.functions]


def _laid_out(function: Function) -> Function:
    parameters = ", ".join(function.parameters)
    if len(function.name) + len(parameters) > 95:
        parameters = "\n    " + ",\n    ".join(function.parameters) + ",\n"
    return replace(
        function, parameters=parameters, docstring=paragraph(function.docstring, 4), body=fold_all(function.body, 4)
    )


def _entries(rows: tuple[tuple[str, str], ...]) -> list[str]:
    """Lines of a table of weights."""
    return [line for key, text in rows for line in fold_all([f'"{key}": {text},'], 8)]


def _import_list(module: str, names: Sequence[str]) -> str:
    joined = ", ".join(names)
    return joined if len(module) + len(joined) < 95 else "(\n" + "".join(f"    {name},\n" for name in names) + ")"


def _tuple_text(items: tuple[str, ...]) -> str:
    listed = ", ".join(json.dumps(item) for item in items)
    return f"({listed},)" if len(items) == 1 else f"({listed})"


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def _sizes_file(program: Program, sizes: SizeNames, sizing: int, double: bool) -> str:
    precision = {"bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}[program.plan.train.precision]
    precise = double or precision == "float64"
    dtype, single = ("float64", "float64") if precise else (precision, "float32")
    lines = [
        f"DTYPE = torch.{dtype}  # of weights and activations",
        f"FLOAT = torch.{single}  # where more than half is needed",
    ]
    title = f"Sizes of {in_docstring(program.plan.name)}: of the whole, and of one rank where a dim is split."
    return "\n".join([f'"""{title}"""', "", "import torch", "", *lines, "", *sizes.header(sizing), ""])

"""Runs the emitted text of a stage, forward and backward, under spmd_types' checker and a fake process group."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from pathlib import Path
from types import ModuleType, SimpleNamespace

import spmd_types as spmd
import spmd_types.checker
import torch
from one_rank import OneRank
from said import Crossing, Said, said_of
from spmd_types._mesh_axis import _reset
from spmd_types._testing import fake_pg
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import Parameter
from typed_collectives import retyped, talked, type_of, types_of
from typed_regions import Region, backward_types, functional, read_as, runtime_modules, settle, typed

from moec import runtime
from moec.compiler.check.groups import varied_axes
from moec.compiler.emit import SMALL
from moec.compiler.emit.unit_text import MOVES
from moec.compiler.placement import Axes
from moec.compiler.program import Program, Stage, Value
from moec.runtime.communicator import use
from moec.runtime.launch import rank_name
from moec.runtime.shard import Weight
from moec.runtime.tape import Tape
from moec.runtime.weights import Weights


@contextmanager
def checker(program: Program) -> Iterator[None]:
    """spmd_types at work, on a mesh of the axes along which a stage has several ranks."""
    atoms = [atom for atom in program.plan.mesh.atoms if atom.size > 1 and atom.name != program.plan.pipeline_axis]
    sizes, names = tuple(atom.size for atom in atoms), tuple(atom.name for atom in atoms)
    _reset()
    with ExitStack() as stack:
        stack.enter_context(fake_pg(prod(sizes)))
        if atoms:
            stack.enter_context(spmd.set_current_mesh(init_device_mesh("cpu", sizes, mesh_dim_names=names)))
        stack.enter_context(spmd_types.checker.typecheck())
        yield


def check_types(program: Program, small: Mapping[str, str], mutated: Mapping[str, str]) -> None:
    """All stages of `small`, files in the small sizing, of which some are changed: those in `mutated`.

    Raises spmd_types.SpmdTypeError or ValueError where spmd_types and moec differ, whatever else where the text fails.
    """
    with checker(program):
        for stage in program.stages:
            TypedStage(program, stage, small, small | mutated).run()


def refusal(program: Program, small: Mapping[str, str], mutated: Mapping[str, str]) -> tuple[str, str]:
    """("types", why) if spmd_types refuses a changed program, ("run", why) if its text fails, else ("", "")."""
    try:
        check_types(program, small, mutated)
    except spmd.SpmdTypeError as fault:
        return "types", str(fault)
    except Exception as fault:
        trace = fault.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        own = trace is not None and Path(spmd.__file__).parent in Path(trace.tb_frame.f_code.co_filename).parents
        return "types" if own and isinstance(fault, ValueError) else "run", str(fault)
    return "", ""


class TypedStage:
    """One rank of a stage. What its text calls `run`, and all that it imports."""

    def __init__(self, program: Program, stage: Stage, emitted: Mapping[str, str], files: Mapping[str, str]) -> None:
        self.program, self.stage = program, stage
        name = f"stage_{stage.index}"
        self.said: Said = said_of(program, stage, emitted[f"{name}.py"])
        self.lines = self.said.line_of(files[f"{name}.py"].splitlines())
        self.module, self.rank, self.rank_text = _loaded(program, stage, files)
        self.job = SimpleNamespace(accumulate=1)
        self.reduced: set[str] = set()
        self.with_gradient: set[int] = set()
        self.seed: Tensor | None = None
        self._tape = TypedTape(self)
        self.axes = {group: self._axes_of(ranks) for group, ranks in self.rank.GROUPS.items()}
        use(OneRank(self.rank.RANK, self.rank.GROUPS))
        self.families: dict[int, str] = {}
        self.weights = self._weights()
        with spmd.no_typecheck():
            tables = self.module.make_tables() if hasattr(self.module, "make_tables") else {}
        everywhere = dict.fromkeys(spmd.current_mesh_names() or {}, spmd.I)
        self.tables = {key: spmd.assert_type(table, everywhere) for key, table in tables.items()}
        self._replace_names()

    def run(self) -> None:
        """A micro-batch forward and backward, and the sums of gradients."""
        program, stage = self.program, self.stage
        arriving = [self._made(program.values[name]) for name in stage.received]
        if program.counter is not None and program.has_loss(stage):
            for count in self.module.count(self):
                self._summed(count, self._same_count())
        sent = self.module.forward(self, 0, *([arriving] if arriving else []))
        for name, x in zip(stage.sent, sent or (), strict=True):
            settle(x, program.values[name], frozenset(), f"the stage sends {name}")
        carried = [x for x in sent or () if x.requires_grad]
        back = [retyped(x.detach(), backward_types(x)) for x in carried]
        found = self.module.backward(self, 0, *([back] if back else []))
        for x, gradient in zip([x for x in arriving if x.requires_grad], found or (), strict=True):
            _expect(gradient, backward_types(x), "what the stage sends back")
        self.module.reduce_gradients(self)
        for number, family in self.families.items():
            if family not in self.reduced and number in self.with_gradient:
                raise spmd.SpmdTypeError(f"the gradients of {family} stay summands")

    # ---- What the text calls.

    def tape(self, i: int) -> "TypedTape":
        return self._tape

    def inputs(self, i: int) -> Mapping[str, Tensor]:
        found = {}
        for name, split in self.module.INPUTS.items():
            value = self.program.values[f"input_{name.partition('@')[0]}"]
            shape = [self.program.local_size(n, axes, SMALL) for n, axes in zip(value.shape, split, strict=True)]
            with spmd.no_typecheck():
                x = torch.ones(shape, dtype=value.dtype if not value.dtype.is_floating_point else torch.float64)
            along = {axis for axes in split for axis in axes}
            types = {axis: spmd.V if axis in along else spmd.I for axis in spmd.current_mesh_names() or {}}
            found[name] = spmd.assert_type(x, types)
        return found

    def add_loss(self, x: Tensor, same: str = "") -> None:
        self._summed(x, same)
        with spmd.no_typecheck():
            seed = torch.ones_like(x.detach())
        summands = {axis: spmd.P if each is spmd.V else each for axis, each in types_of(x).items()}
        self.seed = spmd.assert_type(seed, {axis: each.backward_type() for axis, each in summands.items()})

    def reduce(self, family: str) -> None:
        if family in self.reduced:
            raise spmd.SpmdTypeError(f"the gradients of {family} are invariant, and are summed again")
        self.reduced.add(family)

    # ---- For the parts of this file.

    def _summed(self, x: Tensor, same: str) -> None:
        """A sum over all ranks, of which those of the group `same` have the same, and count once."""
        alone = self.axes.get(same, ()) if same else ()
        for axis in types_of(x):
            if axis not in alone:
                x = spmd.all_reduce(x, axis, src=spmd.P, dst=spmd.I)

    def _same_count(self) -> str:
        found = re.search(r'run\.count_valid\(.*?, same="(\w+)"', self.rank_text)
        return found[1] if found else ""

    def _axes_of(self, ranks: Sequence[int]) -> Axes:
        """The axes of a group, in the mesh's order, but for the stages'."""
        mesh = self.program.plan.mesh
        along = varied_axes(mesh, ranks) or frozenset()
        return tuple(a.name for a in mesh.atoms if a.name in along and a.name != self.program.plan.pipeline_axis)

    def _made(self, value: Value) -> Tensor:
        with spmd.no_typecheck():
            shape = self.program.local_shape(value, SMALL)
            dtype = torch.float64 if value.dtype.is_floating_point else value.dtype
            x = torch.ones(shape, dtype=dtype).requires_grad_(value.differentiable)
        return spmd.assert_type(x, {axis: type_of(value.placement, axis) for axis in spmd.current_mesh_names() or {}})

    def _weights(self) -> Weights:
        with spmd.no_typecheck():
            weights = Weights.create(self.module, self.rank, torch.float64, "cpu")
            for shard in weights.shards.values():
                shard.value.detach()[shard.inside] = 1
        tables: Mapping[str, Mapping[str, Weight]] = self.module.WEIGHTS
        stacks = self.module.STACKED if hasattr(self.module, "STACKED") else {}
        for kind, instances in weights.kinds.items():
            for instance in instances:
                for key, weight in tables[kind].items():
                    self._type(vars(instance)[key], weight)
                for key, parts in stacks.get(kind, {}).items():
                    self._type(vars(instance)[key], tables[kind][parts[0]])
        return weights

    def _type(self, parameter: Tensor, weight: Weight) -> None:
        """From the text alone: a weight is split where it says so, and replicated where its gradient is summed."""
        summed = self.axes.get(weight.reduce, ())
        types = {
            axis: spmd.V if axis in weight.axes else spmd.R if axis in summed else spmd.I
            for axis in spmd.current_mesh_names() or {}
        }
        spmd.assert_type(parameter, types)
        if summed and weight.trainable:
            self.families[id(parameter)] = weight.reduce

    def _replace_names(self) -> None:
        names = vars(self.module)
        for name, (compute, unit) in self.said.regions.items():
            if name in names:
                names[name] = typed(names[name], compute, unit)
        for kind in MOVES:
            names[kind] = partial(self._collective, kind)
        names["all_reduce_together"] = self._together
        names["accumulate"] = self._accumulate
        names["F"] = functional()
        names |= {name: module for name, module in runtime_modules().items() if name in names}

    def _collective(self, kind: str, *args: object, **dims: int) -> Tensor:
        (way, *_) = self._crossings()
        return self._talked(kind, way, args, dims)

    def _together(self, values: Sequence[Tensor], group: str) -> tuple[Tensor, ...]:
        ways = self._crossings()
        ways = ways if len(ways) == len(values) else ways[:1] * len(values)
        return tuple([self._talked("all_reduce", way, (x, group), {}) for x, way in zip(values, ways, strict=True)])

    def _talked(self, kind: str, way: Crossing, args: Sequence[object], dims: Mapping[str, int]) -> Tensor:
        x, group = args[0], args[-1]
        assert isinstance(x, Tensor) and isinstance(group, str)
        types = talked(kind, x, self.axes[group], dims, way)
        with spmd.no_typecheck():
            found = vars(runtime)[kind](*args, **dims)
        return retyped(found, types)

    def _crossings(self) -> tuple[Crossing, ...]:
        """Of the line that is running."""
        frame = sys._getframe(1)
        while frame.f_code.co_filename != self.module.__file__:
            assert frame.f_back is not None
            frame = frame.f_back
        return self.said.crossings[self.lines[frame.f_lineno]]

    def _accumulate(self, weight: Tensor, gradient: Tensor) -> None:
        _expect(gradient, backward_types(weight), "a gradient that is accumulated")
        self.with_gradient.add(id(weight))


class TypedTape(Tape):
    """A tape that knows the types of what its regions read and made."""

    __slots__ = ("_read", "_stage")

    def __init__(self, stage: TypedStage) -> None:
        super().__init__()
        self._stage = stage
        self._read: list[tuple[list[Tensor], list[Tensor], list[Tensor]]] = []

    def run(self, region: Region, *args: object) -> object:
        compute, unit = self._stage.said.regions[_emitted_name(self._stage, region)]
        names = (*compute.inputs, *compute.weights)
        passed = [
            read_as(x, name, unit) if isinstance(x, Tensor) and type(x) is not Parameter else x
            for x, name in zip(args, names, strict=False)
        ]
        result = super().run(region, *passed)
        made = [x for x in (result if isinstance(result, tuple) else (result,)) if x.requires_grad]
        carried = [x for x in passed if isinstance(x, Tensor) and x.requires_grad]
        inputs = [x for x in carried if type(x) is not Parameter]
        self._read.append((inputs, [x for x in carried if type(x) is Parameter], made))
        return result

    def back(self, region: Region, *gradients: Tensor | None) -> object:
        inputs, weights, made = self._read.pop()
        for x, gradient in zip(made, gradients, strict=False):
            if gradient is not None:
                _expect(gradient, backward_types(x), f"a gradient that `{region.__name__}` is given")
        with spmd.no_typecheck():
            result = super().back(region, *gradients)
        self._stage.with_gradient |= {id(weight) for weight in weights}
        found = result if isinstance(result, tuple) else (result,)
        typed = [retyped(gradient, backward_types(x)) for gradient, x in zip(found, inputs, strict=False)]
        return tuple(typed) if isinstance(result, tuple) else typed[0] if typed else None


def _emitted_name(stage: TypedStage, region: Region) -> str:
    return next(name for name in stage.said.regions if vars(stage.module).get(name) is region)


def _expect(x: Tensor, types: Mapping[str, spmd.PerMeshAxisLocalSpmdType], what: str) -> None:
    """Nobody differentiates a gradient, so that one which is invariant and one which is replicated are the same."""
    found = types_of(x)
    for axis, wanted in types.items():
        if {found[axis], wanted} == {spmd.I, spmd.R}:
            x = spmd.convert(x, axis, src=found[axis], dst=wanted, expert_mode=True)
    if types_of(x) != dict(types):
        raise spmd.SpmdTypeError(f"{what} is {found}, and has to be {dict(types)}")


def _loaded(program: Program, stage: Stage, files: Mapping[str, str]) -> tuple[ModuleType, ModuleType, str]:
    """The stage's file and that of its first rank, in double precision, each unit once."""
    world = program.world_size
    rank = next(rank for rank in range(world) if program.stage_of(rank) == stage.index)
    name = f"stage_{stage.index}"
    before = {key: sys.modules.pop(key, None) for key in ("sizes", name)}
    try:
        sizes = _module("sizes", files["sizes.py"])
        for key in ("DTYPE", "FLOAT"):
            if hasattr(sizes, key):
                setattr(sizes, key, torch.float64)
        own = _module(name, files[f"{name}.py"])
        vars(own)["UNITS"] = tuple((kind, prefixes[:1]) for kind, prefixes in vars(own)["UNITS"])
        text = files[f"{rank_name(rank, world)}.py"]
        found = _module(f"rank_{rank}", text)
        return own, found, text
    finally:
        for key, module in before.items():
            sys.modules.pop(key, None)
            if module is not None:
                sys.modules[key] = module


def _module(name: str, text: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = f"{name}.py"
    sys.modules[name] = module
    with spmd.no_typecheck():
        exec(compile(text, f"{name}.py", "exec"), vars(module))
    return module

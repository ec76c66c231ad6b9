"""Every rule of an operator, on drawn shapes: what the rule says may be split is split, and the shards give the whole.

One factor of the rule is split in two or three. Inputs that have it are sliced, the others are the same on every shard;
outputs that have it are joined. Where the factor is summed over, outputs are added, after all but the first shard have
zeros in one input of each term that has no part in the sum. Gradients go the same way back: slices are joined, and what
all shards read gets the sum. An operator that a rule calls linear is run on summands as well.
"""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from operator_cases import CASES, WITHOUT_CASE, Case
from sympy import Integer
from torch import Tensor

from moec.compiler.program import Op, Ref, Value, whole
from moec.compiler.rules import RULES, Rule, Seen
from moec.compiler.sizes import Sizes

NO_GRADIENT = {"aten.floor_divide"}
"""Operators that torch has no derivative of."""
LEARNED = {"aten.cross_entropy_loss": 2, "aten.binary_cross_entropy_with_logits": 2}
"""Of how many of its inputs at most a loss has derivatives: not of the weights of classes."""


def test_every_rule_has_a_case() -> None:
    assert set(RULES) == set(CASES) | set(WITHOUT_CASE)
    assert not set(CASES) & set(WITHOUT_CASE)


@pytest.mark.parametrize("target", CASES)
@settings(max_examples=8, deadline=None, database=None)
@given(data=st.data())
def test_shards_give_the_whole(target: str, data: st.DataObject) -> None:
    case = CASES[target](data.draw)
    rule = rule_of(target, case)
    factors = sorted({factor for factors in (*rule.inputs, *rule.outputs) for factor in factors if factor})
    if not factors:
        return  # every dim is whole
    factor = data.draw(st.sampled_from(factors), "factor")
    sizes = {
        size
        for tensors, sides in ((case.tensors, rule.inputs), (outputs_of(target, case, case.tensors), rule.outputs))
        for x, names in zip(tensors, sides, strict=True)
        for size, name in zip(x.shape, names, strict=True)
        if name == factor
    }
    counts = [n for n in (2, 3) if all(size % n == 0 for size in sizes)]
    if not counts:
        return  # nothing divides
    count = data.draw(st.sampled_from(counts), "shards")
    _check_split(target, case, rule, factor, count)


@pytest.mark.parametrize("target", CASES)
@settings(max_examples=5, deadline=None, database=None)
@given(data=st.data())
def test_linear_operators_take_summands(target: str, data: st.DataObject) -> None:
    """One input of every term is a sum of two; the operator on each of them, added, is the operator on the sum."""
    case = CASES[target](data.draw)
    rule = rule_of(target, case)
    if not rule.terms:
        return  # not linear
    chosen = {data.draw(st.sampled_from(term), "summand") for term in rule.terms}
    assume(all(sum(n in chosen for n in term) == 1 for term in rule.terms))
    assume(target != "aten.div.Tensor" or chosen == {0})  # linear in what is divided
    assume(all(case.tensors[n].is_floating_point() for n in chosen))
    one = [x * 0.25 if n in chosen else x for n, x in enumerate(case.tensors)]
    other = [x * 0.75 if n in chosen else x for n, x in enumerate(case.tensors)]
    shape = [tuple(x.shape) for x in outputs_of(target, case, case.tensors)]
    parts = [outputs_of(target, case, inputs, shape) for inputs in (one, other)]
    for whole_output, *both in zip(outputs_of(target, case, case.tensors), *parts, strict=True):
        torch.testing.assert_close(both[0] + both[1], whole_output, rtol=1e-12, atol=1e-12)


def _check_split(target: str, case: Case, rule: Rule, factor: str, count: int) -> None:
    learned = 0 if target in NO_GRADIENT else LEARNED.get(target, len(case.tensors))
    learns = [x.is_floating_point() and n < learned for n, x in enumerate(case.tensors)]
    inputs = [x.detach().requires_grad_(own) for x, own in zip(case.tensors, learns, strict=True)]
    true = outputs_of(target, case, inputs)
    seeds = [torch.randn(x.shape, dtype=x.dtype) if _carries(x) else None for x in true]
    dims = [_dim(factor, names) for names in rule.inputs]
    out_dims = [_dim(factor, names) for names in rule.outputs]
    contracted = factor in rule.contracted
    firsts = _kept_by_the_first(rule, dims, case.tensors) if contracted and rule.terms else set()
    shards, gradients = [], []
    for index in range(count):
        mine = [_slice(x.detach(), dim, index, count) for x, dim in zip(inputs, dims, strict=True)]
        mine = [torch.zeros_like(x) if n in firsts and index else x for n, x in enumerate(mine)]
        mine = [x.clone().requires_grad_(own) for x, own in zip(mine, learns, strict=True)]
        shapes = [tuple(_slice(x, dim, index, count).shape) for x, dim in zip(true, out_dims, strict=True)]
        made = outputs_of(target, case, mine, shapes)
        shards.append(made)
        own = [_slice(s, dim, index, count) if s is not None else None for s, dim in zip(seeds, out_dims, strict=True)]
        gradients.append(_gradients(made, own, mine))
    for place, (expected, dim) in enumerate(zip(true, out_dims, strict=True)):
        parts = [made[place] for made in shards]
        joined = torch.cat(parts, dim) if dim is not None else sum(parts) if contracted else parts[0]
        torch.testing.assert_close(joined, expected, rtol=1e-12, atol=1e-12)
        assert dim is not None or contracted or all(torch.equal(part, parts[0]) for part in parts)
    for n, (expected, dim) in enumerate(zip(_gradients(true, seeds, inputs), dims, strict=True)):
        if expected is not None:
            parts = [found[n] for found in gradients]
            joined = torch.cat(parts, dim) if dim is not None else parts[0] if n in firsts else sum(parts)
            torch.testing.assert_close(joined, expected, rtol=1e-12, atol=1e-12)


def rule_of(target: str, case: Case) -> Rule:
    """The rule for a case, from shapes alone."""
    values = [_value(f"in{n}", x) for n, x in enumerate(case.tensors)]
    made = outputs_of(target, case, case.tensors)
    args = tuple(_with_refs(case.args, iter(values)))
    op = Op(target, args, tuple(case.kwargs.items()), tuple(f"out{n}" for n in range(len(made))))
    outputs = tuple(_value(f"out{n}", x) for n, x in enumerate(made))
    rule = RULES[target](Seen(op, tuple(values), outputs, Sizes(({}, {}))))
    assert [len(names) for names in rule.inputs] == [x.dim() for x in case.tensors]
    assert [len(names) for names in rule.outputs] == [x.dim() for x in made]
    return rule


def outputs_of(
    target: str, case: Case, tensors: Sequence[Tensor], shapes: Sequence[tuple[int, ...]] | None = None
) -> list[Tensor]:
    """The operator on other tensors in the place of the case's; `shapes` of the outputs replace sizes in arguments."""
    left = iter(tensors)
    args = [_filled(arg, left) for arg in case.args]
    result = case.run(args, case.kwargs, shapes[0] if shapes else None)
    return list(result) if isinstance(result, tuple | list) else [result]


def _filled(arg: object, left: object) -> object:
    if isinstance(arg, Tensor):
        return next(left)  # type: ignore[call-overload]
    return [_filled(item, left) for item in arg] if isinstance(arg, list) else arg


def _with_refs(args: Sequence[object], left: object) -> list[object]:
    """Tensors as references, in order, and lists as tuples."""

    def one(arg: object) -> object:
        if isinstance(arg, Tensor):
            return Ref(next(left).name)  # type: ignore[call-overload]
        return tuple(one(item) for item in arg) if isinstance(arg, list) else arg

    return [one(arg) for arg in args]


def _value(name: str, x: Tensor) -> Value:
    return whole(name, tuple(Integer(size) for size in x.shape), x.dtype)


def _kept_by_the_first(rule: Rule, dims: Sequence[int | None], tensors: Sequence[Tensor]) -> set[int]:
    """Of every term without the factor the smallest input."""
    outside = [term for term in rule.terms if all(dims[n] is None for n in term)]
    return {min(term, key=lambda n: tensors[n].numel()) for term in outside}


def _dim(factor: str, names: Sequence[str | None]) -> int | None:
    found = [dim for dim, name in enumerate(names) if name == factor]
    assert len(found) < 2, "a factor is one dim of a tensor"
    return found[0] if found else None


def _slice(x: Tensor, dim: int | None, index: int, count: int) -> Tensor:
    return x if dim is None else x.tensor_split(count, dim)[index]


def _carries(x: Tensor) -> bool:
    return x.is_floating_point() and x.requires_grad


def _gradients(made: Sequence[Tensor], seeds: Sequence[Tensor | None], inputs: Sequence[Tensor]) -> list[Tensor | None]:
    pairs = [(x, seed) for x, seed in zip(made, seeds, strict=True) if seed is not None and _carries(x)]
    asked = [x for x in inputs if x.requires_grad]
    if not pairs or not asked:
        return [None] * len(inputs)
    found = iter(torch.autograd.grad([x for x, _ in pairs], asked, [s for _, s in pairs], allow_unused=True))
    given = [next(found) if x.requires_grad else None for x in inputs]
    return [torch.zeros_like(x) if g is None and x.requires_grad else g for x, g in zip(inputs, given, strict=True)]

"""The reference against the module that is traced, run eagerly with the same weights in float64."""

from dataclasses import dataclass, replace
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from moec.compiler.models import decoder as traced
from moec.compiler.reference.decoder import Decoder, Sizes
from moec.compiler.reference.experts import PER_MICROBATCH, PER_SEQUENCE, ExpertSizes
from moec.compiler.reference.precise import precise

BATCH, SEQ = 3, 9
DENSE = Sizes(16, 4, 4, 4, 12, 23, False, False, 1e-5, 10000.0, None)
ROUTED = ExpertSizes(5, 6)


@dataclass(frozen=True)
class Case:
    sizes: Sizes
    every: int = 1
    layers: int = 2


def routed(**changes: object) -> Case:
    return Case(replace(DENSE, experts=replace(ROUTED, **changes)))


CASES = {
    "dense": Case(DENSE),
    "gated": Case(replace(DENSE, gated=True)),
    "grouped": Case(replace(DENSE, kv_heads=2)),
    "one key": Case(replace(DENSE, kv_heads=1, head_dim=6)),
    "tied": Case(replace(DENSE, tied=True)),
    "other constants": Case(replace(DENSE, norm_eps=1e-2, rope_base=500.0)),
    "every second": Case(replace(DENSE, experts=ROUTED, gated=True), every=2, layers=5),
    "dropless": routed(),
    "dropless top 2": routed(top_k=2),
    "top 2 then softmax": routed(top_k=2, softmax_first=False),
    "all experts": routed(top_k=5),
    "capacity": routed(capacity=Fraction(11, 10)),
    "small capacity": routed(capacity=Fraction(1, 3), top_k=2),
    "least capacity": routed(capacity=Fraction(1, 10), min_capacity=3),
    "micro-batch": routed(capacity=Fraction(11, 10), group=PER_MICROBATCH),
    "micro-batch top 3": routed(capacity=Fraction(1, 2), group=PER_MICROBATCH, top_k=3, softmax_first=False),
    "gated experts": routed(capacity=Fraction(5, 4), gated=True, top_k=2),
    "one expert": routed(count=1, capacity=Fraction(1, 2)),
}


def build_traced(case: Case) -> traced.Decoder:
    s = case.sizes
    layers = []
    for i in range(case.layers):
        attention = traced.Attention(s.hidden, s.heads, s.kv_heads, s.head_dim)
        e = s.experts
        if e is not None and (i + 1) % case.every == 0:
            tokens = SEQ if e.group == PER_SEQUENCE else BATCH * SEQ
            capacity = None if e.capacity is None else e.rows(tokens)
            ffn = traced.Experts(s.hidden, e.count, e.ffn, e.top_k, capacity, e.group, e.gated, e.softmax_first)
        else:
            ffn = traced.FeedForward(s.hidden, s.ffn or 0, s.gated)
        layers.append(traced.Layer(attention, ffn, s.hidden, s.norm_eps))
    return traced.Decoder(layers, s.hidden, s.head_dim, s.vocab, s.tied, s.norm_eps, s.rope_base)


def build_reference(case: Case) -> Decoder:
    sparse = [case.sizes.experts is not None and (i + 1) % case.every == 0 for i in range(case.layers)]
    return Decoder([(f"layers.{i}", sparse[i]) for i in range(case.layers)], case.sizes).double()


def run(model: nn.Module, tokens: Tensor, labels: Tensor) -> SimpleNamespace:
    loss, count = model(tokens=tokens, labels=labels)
    (loss / count).backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    return SimpleNamespace(loss=loss, count=count, gradients=gradients)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_traced_module(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(3)
    reference, module = build_reference(case), build_traced(case).double()
    for weight in reference.parameters():
        nn.init.normal_(weight, std=0.4)
    module.load_state_dict(reference.state_dict(), strict=not case.sizes.tied)
    assert {n: w.shape for n, w in reference.named_parameters()} == {n: w.shape for n, w in module.named_parameters()}
    tokens = torch.randint(case.sizes.vocab, (BATCH, SEQ))
    labels = tokens.roll(-1, 1)
    labels[:, -1] = labels[0, :4] = -100
    ours = run(reference, tokens, labels)
    with precise():
        theirs = run(module, tokens, labels)
    assert ours.loss.dtype is torch.float64 and ours.count == theirs.count == BATCH * SEQ - 7
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-12, atol=0)
    for weight, gradient in theirs.gradients.items():
        torch.testing.assert_close(ours.gradients[weight], gradient, rtol=1e-11, atol=1e-12, msg=weight)


def test_layers_keep_their_names() -> None:
    model = Decoder([("layers.3", False), ("layers.11", True)], replace(DENSE, experts=ROUTED)).double()
    names = {name for name, _ in model.named_parameters()}
    assert {
        "layers.3.ffn.up.weight",
        "layers.3.attn.wq.weight",
        "layers.11.ffn.up",
        "layers.11.ffn.router.weight",
    } <= names
    for weight in model.parameters():
        nn.init.normal_(weight)
    tokens = torch.randint(23, (BATCH, SEQ))
    model(tokens, tokens)
    model(tokens, tokens)
    assert [list(decided) for decided in model.routing] == [["layers.11"], ["layers.11"]]
    assert model.routing[0]["layers.11"].expert.shape == (BATCH, SEQ, 1)


def test_computes_in_float32_where_weights_are_bfloat16() -> None:
    model = Decoder([("layers.0", True)], replace(DENSE, experts=ROUTED)).bfloat16()
    for weight in model.parameters():
        nn.init.normal_(weight)
    tokens = torch.randint(23, (BATCH, SEQ))
    assert model(tokens, tokens)[0].dtype is torch.float32

"""Every floating type that code names is float64, whichever way it names it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moec.compiler.reference.precise import precise


def test_casts_and_factories() -> None:
    x = torch.ones(3, dtype=torch.float64)
    with precise():
        made = (
            x.float(), x.half(), x.bfloat16(), x.to(torch.float32), x.to(dtype=torch.bfloat16), x.type(torch.float16),
            torch.arange(3, dtype=torch.float32), torch.arange(3.0), torch.zeros(2), x.new_zeros(2, dtype=torch.half),
            torch.tensor(1.5), F.softmax(x, 0, dtype=torch.float32), x.sum(dtype=torch.float32), torch.randn(2),
        )  # fmt: skip
    assert {tensor.dtype for tensor in made} == {torch.float64}


def test_integers_stay() -> None:
    with precise():
        made = torch.arange(3), torch.zeros(2, dtype=torch.int32), torch.ones(2).to(torch.int64), torch.ones(2).bool()
    assert [tensor.dtype for tensor in made] == [torch.int64, torch.int32, torch.int64, torch.bool]


def test_backward_and_a_module_that_casts() -> None:
    class Casts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.float() * torch.arange(3, dtype=torch.float32)).to(x.dtype)

    x = torch.full((3,), 1 / 3, dtype=torch.float64, requires_grad=True)
    with precise():
        y = Casts()(x)
        y.sum().backward()
    assert y[2].item() == 2 / 3 and x.grad is not None and x.grad.tolist() == [0.0, 1.0, 2.0]


def test_is_undone() -> None:
    with precise():
        pass
    assert torch.zeros(1).dtype is torch.float32 and torch.zeros(1).double().float().dtype is torch.float32

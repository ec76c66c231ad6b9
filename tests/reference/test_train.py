"""Training by the reference: how losses of micro-batches add up, and what a step does to the weights."""

import pytest
import torch
from torch import Tensor, nn

from moec.compiler.reference.train import Hyper, train


class Mean(nn.Module):
    """A mean over what it gets, and a weight that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.spare = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).square().mean()


class Sum(Mean):
    """Sum and count of the rows that are not all zero."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        valid = x.any(-1)
        return (self.linear(x).square().squeeze(-1) * valid).sum(), valid.sum()


def model_of(kind: type[Mean]) -> Mean:
    torch.manual_seed(0)
    return kind().double()


def rows(*counts: int) -> list[dict[str, Tensor]]:
    """Micro-batches of four rows, of which so many are valid."""
    generator = torch.Generator().manual_seed(5)
    batches = [torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in counts]
    return [{"x": x * (torch.arange(4) < n)[:, None]} for x, n in zip(batches, counts, strict=True)]


def test_sums_are_divided_by_the_count_of_the_step() -> None:
    microbatches = rows(4, 1, 3)
    found = train(model_of(Sum), [microbatches], Hyper(1e-3), lambda name: True).steps[0]
    whole = model_of(Sum)
    total, count = whole(torch.cat([x["x"] for x in microbatches]))
    (total / count).backward()
    assert found.loss == pytest.approx(float(total.detach() / 8), rel=1e-14)
    torch.testing.assert_close(found.gradients["linear.weight"], whole.linear.weight.grad, rtol=1e-13, atol=0)


def test_means_of_micro_batches_count_alike() -> None:
    microbatches = rows(4, 1, 3)
    found = train(model_of(Mean), [microbatches], Hyper(1e-3), lambda name: True).steps[0]
    whole = model_of(Mean)
    loss = torch.stack([whole(**x) for x in microbatches]).mean()
    loss.backward()
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-14)
    torch.testing.assert_close(found.gradients["linear.bias"], whole.linear.bias.grad, rtol=1e-13, atol=0)


def test_one_update_by_hand() -> None:
    """The first update of AdamW is the gradient's sign, but for eps, after the decay."""
    hyper = Hyper(lr=0.1, eps=1e-3, weight_decay=0.5, clip=0.01)
    model = model_of(Mean)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trained = train(model, [rows(4)], hyper, lambda name: "bias" not in name)
    step = trained.steps[0]
    norm = sum(float(gradient.square().sum()) for gradient in step.gradients.values()) ** 0.5
    assert step.norm == pytest.approx(norm, rel=1e-14)
    for name, old in before.items():
        clipped = step.gradients[name] * min(1.0, 0.01 / (norm + 1e-6))
        decayed = old * (1.0 if name == "linear.bias" else 1 - 0.1 * 0.5)
        expected = decayed - 0.1 * clipped / (clipped.abs() + 1e-3)
        torch.testing.assert_close(trained.weights[name], expected, rtol=1e-12, atol=1e-15)


def test_a_weight_that_is_not_reached_has_gradient_zero_and_decays() -> None:
    trained = train(model_of(Mean), [rows(4)] * 2, Hyper(0.1, weight_decay=0.5), lambda name: True)
    assert not trained.steps[1].gradients["spare"].any()
    torch.testing.assert_close(trained.weights["spare"], torch.full((2,), 0.95**2, dtype=torch.float64))


def test_weights_that_are_frozen_stay() -> None:
    model = model_of(Mean)
    model.linear.weight.requires_grad_(False)
    trained = train(model, [rows(4)], Hyper(0.1), lambda name: True)
    assert set(trained.weights) == set(trained.steps[0].gradients) == {"linear.bias", "spare"}

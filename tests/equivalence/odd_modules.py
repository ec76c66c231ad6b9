"""Small modules of a user's own, each with something that a compiler could stumble over.

All take x float[batch, rows, width] and label int[batch] < 5 (unless they say otherwise).
Legend: B samples, R rows, W width.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 5


class Block(nn.Module):
    """A residual pair of linears with biases: [B, R, W] -> the same."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Plain(nn.Module):
    """Biases everywhere, and the loss is a mean."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.stem = nn.Linear(width, width)
        self.layers = nn.ModuleList(Block(width, inner) for _ in range(layers))
        self.head = nn.Linear(width, CLASSES)

    def scores(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.scores(self.stem(x)), label)


class Fan(nn.Module):
    """Many linears of one value: [B, R, W] -> the same. Some can be one product, some cannot."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.gate = nn.Linear(width, inner)
        self.short = nn.Linear(width, 2)  # of another size
        self.first = nn.Linear(width, 3, bias=False)  # the three have no bias, and differ in size
        self.second = nn.Linear(width, 5, bias=False)
        self.third = nn.Linear(width, 3, bias=False)
        self.merged = nn.Linear(width, 4, bias=False)  # its rows are merged with its columns
        self.frozen = nn.Linear(width, 3, bias=False).requires_grad_(False)
        self.again = nn.Linear(width, width, bias=False)  # used twice
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.short(x).transpose(0, 1).softmax(-1)[..., :1].transpose(0, 1)
        merged = self.merged(x).view(-1, 2).square().sum()
        first, second, third = self.first(x), self.second(x).tanh(), self.third(x).unsqueeze(-1).squeeze(-1)
        mixed = (first * third).sum(-1, keepdim=True) * second.mean(-1, keepdim=True) + self.frozen(x).sum()
        return (
            x + self.again(self.again(x)) * mixed * merged.tanh() + self.down(F.silu(self.gate(x)) * self.up(x)) * scale
        )


class Fans(nn.Module):
    """A model of these."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.layers = nn.ModuleList(Fan(width, inner) for _ in range(layers))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.head(x.mean(1)), label)


class SumAndCount(Plain):
    """(sum, count) with labels that do not count."""

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        label = torch.where(label == 0, -100, label)
        loss = F.cross_entropy(self.scores(self.stem(x)), label, reduction="sum")
        return loss, (label != -100).sum()


class Skip(Plain):
    """What the first layer makes is read again past all stages."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = self.stem(x)
        early = F.silu(x)
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.head((x * early).mean(1)), label)


class UNet(Plain):
    """Every layer of the second half reads what its mirror image made."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = self.stem(x)
        kept = []
        half = len(self.layers) // 2
        for layer in self.layers[:half]:
            x = layer(x)
            kept.append(x)
        for layer in self.layers[half:]:
            x = layer(x + kept.pop())
        return F.cross_entropy(self.head(x.mean(1)), label)


class TwoLists(Plain):
    """Two lists of layers of different kinds, one after the other, and between them a norm."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.between = nn.LayerNorm(width)
        self.later = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(layers))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        x = self.between(x)
        for layer in self.later:
            x = x + layer(x)
        return F.cross_entropy(self.head(x.mean(1)), label)


class Twice(Plain):
    """Every layer runs twice, with the same weights."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(layer(x))
        return F.cross_entropy(self.head(x.mean(1)), label)


class Around(Plain):
    """The first layer runs again after the last: its weights live on two stages."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.head(self.layers[0](x).mean(1)), label)


class Mixed(Plain):
    """One value is two operands, each split otherwise; attention without heads; padding; sizes of other tensors."""

    def scores(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
            x = x + torch.einsum("brw,bsw->brs", x, x).softmax(-1) @ x
            x = F.scaled_dot_product_attention(x, x, x) + x.flatten(0, 1).tanh().view_as(x)
            x = x + F.pad(x, (0, 0, 1, 0))[:, :-1]
        return self.head(x.mean(1))


class Counted(Plain):
    """The count is a number that the module makes a tensor of."""

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.scores(self.stem(x))
        return F.cross_entropy(scores, label, reduction="sum"), torch.tensor(label.numel())


class CountedByMask(Plain):
    """The count is the sum of a mask that is made floating, and the sum has the same mask as a factor."""

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.scores(self.stem(x))
        mask = (label > 0).float()
        return (F.cross_entropy(scores, label, reduction="none") * mask).sum(), mask.sum()


class CountedTwice(Plain):
    """The count reads what a loss of equal shapes reads as well, and is of half precision where the plan is."""

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        wanted = x.mean(-1)
        made = self.scores(x).mean(-1, keepdim=True).expand_as(wanted)
        seen = (wanted > 0).to(x.dtype) * (x[..., 0] > 0).to(x.dtype)
        return (F.mse_loss(made, wanted, reduction="none") * seen).sum(), seen.sum()


class Written(Plain):
    """A part of a copy is overwritten with a number."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = self.stem(x).clone()
        x[:, 0] = 0
        x[..., 1] = 0.1
        return F.cross_entropy(self.scores(x), label)


class Made(Plain):
    """Tensors made out of nothing, with no type and no device stated, and numbers made tensors."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        rows = x.shape[1]
        h = torch.zeros(x.shape[0], x.shape[2])
        for row in range(2):
            h = torch.tanh(self.stem(x[:, row]) + self.stem(h))
        mask = torch.ones(rows, rows).tril()
        x = mask @ x + torch.linspace(0, 1, rows)[:, None].to(x.dtype) + h[:, None] * torch.full((1, 1, 1), 0.1)
        scores = self.scores(x) * torch.arange(1, CLASSES + 1)
        return F.cross_entropy(scores, label) * torch.tensor(0.1, device=x.device)


class Bends(Plain):
    """Slopes that are learned, and losses that are squares near zero only."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.slope, self.slopes = nn.PReLU(), nn.PReLU(rows)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        scores = self.scores(self.slopes(self.slope(self.stem(x))))
        wanted = F.one_hot(label, CLASSES).to(scores.dtype)
        return F.huber_loss(scores, wanted, delta=0.7) + F.smooth_l1_loss(scores, wanted, beta=0.3)


class Softened(nn.Module):
    """The last layer mixes rows, and after it their mean is taken: the gradients of all rows are alike."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.layers = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
            x = x + x.softmax(1)
        return F.cross_entropy(self.head(x.mean(1)), label)


class WithKeywords(nn.Module):
    """Layers get more than x, by keyword, and give two results."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.layers = nn.ModuleList(KeywordLayer(width, inner) for _ in range(layers))
        self.scale = nn.Parameter(torch.ones(width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        gate, total = torch.sigmoid(x * self.scale), x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, own = layer(x, gate=gate, strength=0.5)
            total = total + own
        return F.cross_entropy(self.head(x.mean(1)), label) + 0.01 * total.mean()


class KeywordLayer(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor, *, gate: Tensor, strength: float = 1.0) -> tuple[Tensor, Tensor]:
        h = F.relu(self.up(x))
        return x + strength * gate * self.down(h), h.square().mean(dim=(1, 2))


class Positions(nn.Module):
    """A registered table of positions, and one that is not saved."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        angle = torch.arange(rows)[:, None] / 10.0 ** torch.linspace(0, 1, width)
        self.register_buffer("table", angle.sin())
        self.register_buffer("mask", torch.ones(rows, rows).tril(), persistent=False)
        self.learned = nn.Parameter(torch.randn(rows, width))
        self.layers = nn.ModuleList(MixLayer(width, inner) for _ in range(layers))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = x + self.table + self.learned
        for layer in self.layers:
            x = layer(x, self.mask)
        return F.cross_entropy(self.head(x[:, -1]), label)


class MixLayer(nn.Module):
    """Attention by hand, with one matrix for q, k and v, and a mask."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * inner)
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = (q @ k.transpose(1, 2)) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(mask == 0, float("-inf"))
        return x + self.out(torch.softmax(scores, dim=-1) @ v)


class Heads(nn.Module):
    """Attention over heads by torch's own function, weights in the order of torch.nn.MultiheadAttention."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"q": nn.Linear(width, inner), "k": nn.Linear(width, inner),
                                                   "v": nn.Linear(width, inner), "o": nn.Linear(inner, width)})
                                    for _ in range(layers))  # fmt: skip
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for layer in self.layers:
            q, k, v = (layer[name](x).unflatten(-1, (-1, 2)).transpose(1, 2) for name in "qkv")
            x = x + layer["o"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return F.cross_entropy(self.head(x.mean(1)), label)


class OneHot(nn.Module):
    """Experts by one-hot masks and einsum, the best of them for every row, all at once."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4, experts: int = 6):
        super().__init__()
        self.layers = nn.ModuleList(OneHotLayer(width, inner, experts) for _ in range(layers))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.head(x.mean(1)), label)


class OneHotLayer(nn.Module):
    def __init__(self, width: int, inner: int, experts: int):
        super().__init__()
        self.experts = experts
        self.router = nn.Linear(width, experts)
        self.up = nn.Parameter(torch.randn(experts, width, inner) * 0.3)
        self.down = nn.Parameter(torch.randn(experts, inner, width) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        prob, best = self.router(x).softmax(-1).max(-1)
        chosen = F.one_hot(best, self.experts).to(x.dtype)  # [B, R, E]
        rows = torch.einsum("bre,brw->ebrw", chosen, x)
        h = F.gelu(torch.einsum("ebrw,ewi->ebri", rows, self.up))
        y = torch.einsum("ebri,eiw->ebrw", h, self.down)
        return x + prob[..., None] * torch.einsum("ebrw,bre->brw", y, chosen)


class Convolution(nn.Module):
    """Rows as positions of a 1-d convolution, with group norm and pooling."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.layers = nn.ModuleList(ConvLayer(width, inner) for _ in range(layers))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.head(F.adaptive_avg_pool1d(x, 1).squeeze(-1)), label)


class ConvLayer(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.up = nn.Conv1d(width, inner, 3, padding=1)
        self.down = nn.Conv1d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.relu(self.up(self.norm(x))))


class Named(nn.Module):
    """Parameters and modules whose names are words of Python, or of moec's own programs."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(layers):
            layer = NamedLayer(width)
            self.layers.append(layer)
        self.add_module("lambda", nn.Linear(width, CLASSES))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(getattr(self, "lambda")(x.mean(1)), label)


class NamedLayer(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        for name in ("class", "import", "tape", "torch", "w", "self_"):
            self.register_parameter(name, nn.Parameter(torch.randn(width)))

    def forward(self, x: Tensor) -> Tensor:
        torch_, w = self._parameters["torch"], self._parameters["w"]
        tape = x * self._parameters["class"] + self._parameters["import"]
        return torch.tanh(tape) * self._parameters["tape"] + torch_ * w + x * self._parameters["self_"]


class Tied(nn.Module):
    """The table of the first layer is the matrix of the last, with a bias of its own; label is the text itself."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4, words: int = 12):
        super().__init__()
        self.table = nn.Embedding(words, width)
        self.layers = nn.ModuleList(Block(width, inner) for _ in range(layers))
        self.head = nn.Linear(width, words)
        self.head.weight = self.table.weight

    def forward(self, text: Tensor, answer: Tensor) -> Tensor:
        x = self.table(text)
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.head(x).flatten(0, 1), answer.flatten())


class TiedLayers(Plain):
    """All layers share one matrix."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        for layer in self.layers:
            layer.up.weight = self.layers[0].up.weight


class Frozen(Plain):
    """A weight that is not trained."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.stem.weight.requires_grad_(False)


class Unused(Plain):
    """A weight that nothing reads."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.spare = nn.Linear(width, width)


class Reassigned(Plain):
    """Works in place on what it made."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = self.stem(x)
        x += 1
        x.mul_(0.5)
        for layer in self.layers:
            x = layer(x)
        h = torch.zeros_like(x)
        h[:, 0] = x[:, -1]
        return F.cross_entropy(self.head((x + h).mean(1)), label)


class MeanSquare(Plain):
    """Another loss, a mean over everything, and a regularizer of weights."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        y = self.stem(x)
        for layer in self.layers:
            y = layer(y)
        return F.mse_loss(y, x) + 1e-3 * self.head.weight.square().sum()


class BatchStatistics(Plain):
    """Normalizes over samples by hand: what one sample gives depends on the others."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = self.stem(x)
        x = (x - x.mean(0, keepdim=True)) / (x.var(0, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return F.cross_entropy(self.scores(x), label)


class Split(Plain):
    """An uneven split, a concatenation, a stack, an expand and a permutation."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = self.stem(x)
        a, b = x.split((1, x.shape[2] - 1), dim=2)
        x = torch.cat((b, a), dim=2)
        both = torch.stack((x, x.flip(1)), dim=1)
        x = both.permute(0, 2, 3, 1).sum(-1) + x[:, :1].expand(-1, x.shape[1], -1)
        return F.cross_entropy(self.scores(x), label)


class Dropout(Plain):
    """Random in its forward."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.scores(F.dropout(self.stem(x), 0.1, self.training)), label)


class BatchNorm(Plain):
    """Writes its buffers in its forward."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.norm = nn.BatchNorm1d(rows)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.scores(self.norm(x)), label)


class Counter(Plain):
    """A buffer that counts the steps."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        self.steps += 1
        return F.cross_entropy(self.scores(x) / self.steps, label)


class NoRule(Plain):
    """An operator that has no rule."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.scores(torch.linalg.qr(self.stem(x)).Q), label)


class DataDependent(Plain):
    """Branches on a value."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x * 2
        return F.cross_entropy(self.scores(x), label)


class NonZero(Plain):
    """A size that is data."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.scores(x)[label != 0], label[label != 0])


class Constant(Plain):
    """A tensor that is held, and is neither parameter nor buffer."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.held = torch.ones(width)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.scores(x * self.held), label)


class NoLoss(Plain):
    """Returns scores."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.scores(x)


class Dictionary(Plain):
    """Returns the loss by name."""

    def forward(self, x: Tensor, label: Tensor) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.scores(x), label)}


class CountedByWeight(Plain):
    """The count is no whole number."""

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        weight = label * 0.5
        return (F.cross_entropy(self.scores(x), label, reduction="none") * weight).sum(), weight.sum()


class WithoutGradient(Plain):
    """A part that is computed within no_grad."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        with torch.no_grad():
            most = x.abs().max()
        return F.cross_entropy(self.scores(x / most), label)


class Lifted(Plain):
    """A tensor of several numbers that the forward makes."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.scores(x) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), label)


class NoGradient(Plain):
    """The loss does not depend on any weight."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return x.mean()


class ByCount(Plain):
    """The number of layers that run depends on the width."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for layer in self.layers[: x.shape[2] % 3 + 1]:
            x = layer(x)
        return F.cross_entropy(self.head(x.mean(1)), label)


class Raises(Plain):
    """Fails when it runs."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        raise RuntimeError("not today")


class NumPy(Plain):
    """Leaves torch."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.scores(x), label) + float(x.detach().numpy().mean())


class Recurrent(nn.Module):
    """torch's own recurrent layer."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.rnn = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.head(self.rnn(x)[0][:, -1]), label)


class Encoder(nn.Module):
    """torch's own transformer layers."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, inner, dropout=0.0, batch_first=True) for _ in range(layers)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.head(x.mean(1)), label)


class Sequence(nn.Module):
    """Layers in a torch.nn.Sequential instead of a list."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.body = nn.Sequential(*(Block(width, inner) for _ in range(layers)))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.head(self.body(x).mean(1)), label)


class Focal(Plain):
    """Losses weighted by their own shares, through which no gradient flows, and parts read as they are and as a sum."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.scores(self.stem(x))
        h = torch.where(h > 0, h, 0.1 * h) + (h.detach() * h).mean() + h * (h > 0)
        losses = F.cross_entropy(h, label, reduction="none")
        return ((losses / losses.sum()).detach() * losses).sum() / x.shape[0]


class InDict(nn.Module):
    """Layers in a torch.nn.ModuleDict, and small parts in a Sequential that is no list of layers."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.body = nn.ModuleDict({f"block_{n}": Block(width, inner) for n in range(layers)})
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, CLASSES))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for block in self.body.values():
            x = block(x)
        return F.cross_entropy(self.head(x.mean(1)), label)


class Smoothed(Plain):
    """A mean over labels that are smoothed, of which some do not count."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        label = torch.where(label == 0, -100, label)
        return F.cross_entropy(self.scores(self.stem(x)), label, label_smoothing=0.1)


class Weighted(Plain):
    """A mean over labels with a weight of each class, which is a buffer."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.register_buffer("weights", torch.linspace(0.5, 1.5, CLASSES))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.scores(self.stem(x)), label, weight=self.weights)


class Probabilities(Plain):
    """The truth is a distribution over classes."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        truth = F.one_hot(label, CLASSES).to(x.dtype) * 0.8 + 0.04
        return F.cross_entropy(self.scores(self.stem(x)), truth)


class Each(Plain):
    """A loss of every sample by itself, of which the larger count more."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        loss = F.cross_entropy(self.scores(self.stem(x)), label, reduction="none")
        return (loss * loss.detach()).mean()


class Binary(Plain):
    """Every class is a question by itself, with a weight of its positive answers."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.register_buffer("weights", torch.linspace(0.5, 1.5, CLASSES))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        truth = F.one_hot(label, CLASSES).to(x.dtype)
        return F.binary_cross_entropy_with_logits(self.scores(self.stem(x)), truth, pos_weight=self.weights)


class ShiftedLayer(Block):
    def forward(self, x: Tensor) -> Tensor:
        h = self.down(F.gelu(self.up(x)))
        return 2 - (h + 1) * 0.5 + 0.1 * x + (h * 8).long().to(x.dtype) * 0.01


class Shifted(Plain):
    """Numbers are added to what may be a sum over ranks, and it is multiplied and cut off."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.layers = nn.ModuleList(ShiftedLayer(width, inner) for _ in range(layers))


class Squeezed(Plain):
    """A dim of one is put in and taken out, beside one that is of one on a rank only."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = self.stem(x).unsqueeze(1).squeeze()
        return F.cross_entropy(self.scores(x[:, None].squeeze(1)), label)


class Padded(nn.Module):
    """A table of which one row stays as it is."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4, words: int = 12):
        super().__init__()
        self.table = nn.Embedding(words, width, padding_idx=0)
        self.layers = nn.ModuleList(Block(width, inner) for _ in range(layers))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.table((x[..., 0] * 4).long().clamp(-5, 5) + 5)
        h = h + self.table(torch.zeros_like(label))[:, None]
        for layer in self.layers:
            h = layer(h)
        return F.cross_entropy(self.head(h.mean(1)), label)


class Given(nn.Module):
    """Layers are given a weight of the model, which all of them read, and each gives it to the next with its own."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.layers = nn.ModuleList(GivenLayer(width, inner) for _ in range(layers))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        scale = self.scale
        for layer in self.layers:
            x, scale = layer(x, self.scale, scale)
        return F.cross_entropy(self.head(x.mean(1) * scale), label)


class GivenLayer(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor, scale: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.down(F.silu(self.up(x * scale))) * last, last * scale.sigmoid()


class HalfFrozen(Plain):
    """Every other layer has a matrix that is not trained."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        for layer in self.layers[::2]:
            layer.up.weight.requires_grad_(False)


class Vector(Plain):
    """A matrix times a vector, a bias that is a matrix, and a norm over a dim."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.direction = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = self.stem(x)
        along = x @ self.direction
        x = x - along[..., None] * self.direction / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return F.cross_entropy(self.scores(x / x.norm(dim=1, keepdim=True)) + x.var(1).sum(-1, keepdim=True), label)


class SwappedLayer(Block):
    def __init__(self, width: int, inner: int, flipped: bool):
        super().__init__(width, inner)
        self.flipped = flipped

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(F.gelu(self.up(self.norm(x))))
        return y - x if self.flipped else x - y


class Swapped(Plain):
    """Layers of the same operators and weights, every second of which reads its values the other way around."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.layers = nn.ModuleList(SwappedLayer(width, inner, bool(i % 2)) for i in range(layers))


class ReversibleLayer(Block):
    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return b, a + self.down(F.gelu(self.up(self.norm(b))))


class Reversible(Plain):
    """The first layer is given one tensor as both of its values, and gives two."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.layers = nn.ModuleList(ReversibleLayer(width, inner) for _ in range(layers))

    def scores(self, x: Tensor) -> Tensor:
        a = b = x
        for layer in self.layers:
            a, b = layer(a, b)
        return self.head((a + b).mean(1))


class Context:
    """What a model passes along."""

    scale = 1.0


class ScaledLayer(Block):
    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x + context.scale * self.down(F.gelu(self.up(self.norm(x))))


class Scaled(Plain):
    """Every layer is given the same object, which says something else each time."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.layers = nn.ModuleList(ScaledLayer(width, inner) for _ in range(layers))

    def scores(self, x: Tensor) -> Tensor:
        context = Context()
        for i, layer in enumerate(self.layers):
            context.scale = i + 1.0
            x = layer(x, context)
        return self.head(x.mean(1))


class AddingLayer(Block):
    losses: list[Tensor]

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        self.losses.append(x.square().mean())
        return x


class Adding(Plain):
    """Layers add losses of their own to a list that they share."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.layers = nn.ModuleList(AddingLayer(width, inner) for _ in range(layers))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        losses: list[Tensor] = []
        for layer in self.layers:
            layer.losses = losses  # pyright: ignore[reportAttributeAccessIssue]
        return super().forward(x, label) + 0.1 * torch.stack(losses).sum()


class Hooked(Plain):
    """A hook changes what a layer gives."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.layers[1].register_forward_hook(lambda module, inputs, output: 3 * output)


class HookedGradient(Plain):
    """A hook changes the gradient of a weight."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.stem.weight.register_hook(lambda gradient: 2 * gradient)


class BySize(Plain):
    """The small model reads its values the other way around."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        y = self.stem(x)
        return F.cross_entropy(self.scores(x - y if x.shape[-1] < 10 else y - x), label)


class ApproximateBySize(Plain):
    """The small model has another kind of a function."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        kind = "none" if x.shape[-1] < 10 else "tanh"
        return F.cross_entropy(self.scores(F.gelu(self.stem(x), approximate=kind)), label)


class ScaledBySize(Plain):
    """A number that is the operator's own at one of the sizes."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.scores(torch.add(x, self.stem(x), alpha=x.shape[-1] // 8)), label)


class WrittenArgument(Plain):
    """Writes what it is given."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return super().forward(x.mul_(2), label)


class FromNumPy(Plain):
    """A weight that begins as an array, which is on no meta device."""

    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__(width, inner, layers)
        self.scale = nn.Parameter(torch.from_numpy(np.linspace(0.5, 1.5, width, dtype=np.float32)))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return super().forward(x * self.scale, label)

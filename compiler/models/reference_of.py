"""The unsharded model that a shrunken program is compared with, with the program's initial values."""

import torch
from torch import nn

from moec.compiler.reference.decoder import Decoder as Reference
from moec.compiler.reference.decoder import Sizes
from moec.compiler.reference.experts import ExpertSizes
from moec.compiler.shrink import Shrunk, kept_layers
from moec.dsl.plan import Decoder, Imported
from moec.runtime.module_values import Model, class_of
from moec.runtime.weights import Values


def reference_model(shrunk: Shrunk, values: Values) -> nn.Module:
    """In float64. For an imported model the user's own module, else the one written apart."""
    model = shrunk.program.plan.model
    built = _imported(model) if isinstance(model, Imported) else _described(shrunk, model)
    built = built.to(torch.float64)
    inits = {name: parameter.init for name, parameter, _ in shrunk.program.weights(shrunk.program.calls)}
    with torch.no_grad():
        for name, weight in (*built.named_parameters(), *built.named_buffers()):
            if name in inits:
                weight.copy_(values(name, tuple(weight.shape), inits[name], tuple(slice(0, n) for n in weight.shape)))
    return built


def _imported(model: Imported) -> nn.Module:
    arguments = dict(model.arguments) | dict(model.small)
    return class_of(Model(model.target, arguments))(**arguments)


def _described(shrunk: Shrunk, model: Decoder) -> nn.Module:
    sizes = shrunk.program.sizes.sizings[1]
    layers = [(path, model.sparse(int(path.rpartition(".")[2]))) for path in kept_layers(shrunk.units, shrunk.program)]
    return Reference(
        layers,
        Sizes(
            hidden=sizes["hidden"],
            heads=sizes["heads"],
            kv_heads=sizes.get("kv_heads", sizes["heads"]),
            head_dim=sizes["head_dim"],
            ffn=sizes.get("ffn"),
            vocab=sizes["vocab"],
            gated=model.gated,
            tied=model.tied,
            norm_eps=model.norm_eps,
            rope_base=model.rope_base,
            experts=_experts(model, shrunk),
        ),
    )


def _experts(model: Decoder, shrunk: Shrunk) -> ExpertSizes | None:
    experts, sizes = model.experts, shrunk.program.sizes.sizings[1]
    if experts is None:
        return None
    return ExpertSizes(
        count=sizes["experts"],
        ffn=sizes["expert_ffn"],
        top_k=experts.top_k,
        capacity=experts.capacity,
        min_capacity=experts.min_capacity,
        group=experts.route,
        gated=experts.gated,
        softmax_first=experts.softmax_first,
    )

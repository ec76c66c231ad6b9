"""The unsharded model that a program is compared with, with the program's initial values."""

import torch
from torch import nn

from moec.compiler.emit import SMALL
from moec.compiler.reference.decoder import Decoder as Reference
from moec.compiler.reference.decoder import Sizes
from moec.compiler.reference.experts import ExpertSizes
from moec.compiler.verify.shrink import Trial
from moec.dsl.plan import Decoder, Imported
from moec.runtime.module_values import Model, class_of
from moec.runtime.weights import Values


def reference_model(trial: Trial, values: Values) -> nn.Module:
    """In float64. For an imported model the user's own module, else the one written apart."""
    model = trial.program.plan.model
    built = _imported(model, trial) if isinstance(model, Imported) else _described(trial, model)
    built = built.to(torch.float64)
    inits = {name: parameter.init for name, parameter, _ in trial.program.weights(trial.program.calls)}
    with torch.no_grad():
        for name, weight in (*built.named_parameters(), *built.named_buffers()):
            if name in inits:
                weight.copy_(values(name, tuple(weight.shape), inits[name], tuple(slice(0, n) for n in weight.shape)))
    return built


def _imported(model: Imported, trial: Trial) -> nn.Module:
    arguments = dict(model.arguments) | (dict(model.small) if trial.sizing == SMALL else {})
    return class_of(Model(model.target, arguments))(**arguments)


def _described(trial: Trial, model: Decoder) -> Reference:
    sizes = trial.sizes
    layers = [(path, model.sparse(int(path.rpartition(".")[2]))) for path in trial.layers]
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
            experts=_experts(model, trial),
        ),
    )


def _experts(model: Decoder, trial: Trial) -> ExpertSizes | None:
    experts, sizes = model.experts, trial.sizes
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

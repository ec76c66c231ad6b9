"""What modes have in common that see every operator."""

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class DispatchMode(TorchDispatchMode):
    """One that is ready at once."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Or else the first operation imports all of torch.compile: three seconds."""
        return False


def tensors_of(tree: object) -> list[Tensor]:
    """Those among the arguments or the results of an operator."""
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]

"""Functions of tensors, compiled once for any number of rows and called at the least cost.

What `torch.compile` does around every call (guards, the look-up of what was compiled for such
arguments, AOTAutograd's wrappers) takes 0.1 ms between other work on a CPU, two thirds of what
sampling the thought tokens of a small batch takes. A function whose arguments have the same layout
in every pass needs none of it: what Inductor has made of it is called.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from types import FunctionType
from typing import Any, cast

import torch
from torch._C._dynamo.eval_frame import reset_code
from torch._dynamo.decorators import mark_unbacked
from torch._functorch import config as aot_config
from torch._inductor.compile_fx import compile_fx, compile_fx_inner

TensorFunction = Callable[..., torch.Tensor]


class CompiledFunction:
    """Compiles a function of tensors that returns one, and may write into its arguments; nothing is
    compiled later.

    `examples`: arguments like those that will come, in every dtype, device and layout, except that
    any number of rows may come where an index is in `rows`: of these arguments, whose examples must
    differ in length, the first dimension and its stride are free. The function is run on them.
    """

    def __init__(
        self, function: TensorFunction, examples: Sequence[torch.Tensor], rows: Sequence[int]
    ) -> None:
        self._graph: Any = None
        self._graph_arguments: list[Any] = []
        for index in rows:
            mark_unbacked(examples[index], 0)
        compiled = torch.compile(function, backend=self._compile, dynamic=False, fullgraph=True)
        # Where AOTAutograd finds its own result in a cache, it does not ask Inductor, which has one
        # of its own.
        with aot_config.patch(enable_autograd_cache=False):
            compiled(*examples)
        # Dynamo keeps what it has compiled with the function, would compare with it what comes
        # next, and gives up after the eighth.
        reset_code(cast(FunctionType, function).__code__)
        # What is computed with numbers of another kind than expected would be nonsense.
        self._free = [(index, examples[index].dtype) for index in rows]
        self._function = function
        known = _with_layout(examples, rows)
        order = [_find(each, known, len(examples)) for each in self._graph_arguments]
        self._in_order: Callable[[list[Any]], tuple[Any, ...]] = itemgetter(*order)
        self._graph_arguments = []

    def __call__(self, *arguments: torch.Tensor) -> torch.Tensor:
        """What the function returns; the arguments must be laid out as the examples were. It is
        called as it is where those with free rows have another dtype.
        """
        known: list[Any] = list(arguments)
        for index, dtype in self._free:
            argument = arguments[index]
            if argument.dtype != dtype:
                return self._function(*arguments)
            known += (argument.size(0), argument.stride(0))
        result: torch.Tensor = self._graph(list(self._in_order(known)))[0]
        return result

    def _compile(self, graph: torch.fx.GraphModule, examples: list[Any]) -> Callable[..., Any]:
        compiled: Any = compile_fx(graph, examples, inner_compile=self._compile_inner)

        def run(*arguments: Any) -> Any:
            self._graph_arguments = list(arguments)
            return compiled(*arguments)

        return run

    def _compile_inner(self, *arguments: Any, **options: Any) -> Any:
        self._graph = compile_fx_inner(*arguments, **options)
        return self._graph


def _with_layout(examples: Sequence[torch.Tensor], rows: Sequence[int]) -> list[Any]:
    """The examples, then length and stride of each whose rows are free."""
    layout = [(examples[index].size(0), examples[index].stride(0)) for index in rows]
    return [*examples, *chain.from_iterable(layout)]


def _find(argument: Any, known: Sequence[Any], num_tensors: int) -> int:
    """Which of the function's arguments, lengths and strides an argument of the graph is."""
    if isinstance(argument, torch.Tensor):
        (index,) = (index for index in range(num_tensors) if known[index] is argument)
        return index
    numbers = known[num_tensors:]
    assert numbers.count(argument) == 1, f"{argument} is not one of {numbers}"
    return num_tensors + numbers.index(argument)

"""Functions of tensors, compiled once for any number of rows and called at the least cost.

What `torch.compile` does around every call (guards, the look-up of what was compiled for such
arguments, AOTAutograd's wrappers) takes 0.1 ms between other work on a CPU, two thirds of what
sampling the thought tokens of a small batch takes. A function whose arguments have the same layout
in every pass needs none of it: what Inductor has made of it is called.
"""

from collections.abc import Callable, Sequence
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
        self._graph_arguments: tuple[Any, ...] = ()
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
        free: list[tuple[int, int, int]] = [
            (value, index, is_stride)
            for index in rows
            for is_stride, value in enumerate((len(examples[index]), examples[index].stride(0)))
        ]
        # What is computed with numbers of another kind than expected would be nonsense.
        self._dtypes = [(index, examples[index].dtype) for index in rows]
        self._function = function
        # How to find each argument of the graph among those of the function.
        self._sources = [_source(each, examples, free) for each in self._graph_arguments]
        self._graph_arguments = ()

    def __call__(self, *arguments: torch.Tensor) -> torch.Tensor:
        """What the function returns; the arguments must be laid out as the examples were. It is
        called as it is where those with free rows have another dtype.
        """
        for index, dtype in self._dtypes:
            if arguments[index].dtype != dtype:
                return self._function(*arguments)
        values: list[Any] = [
            arguments[index]
            if is_stride is None
            else arguments[index].stride(0)
            if is_stride
            else arguments[index].shape[0]
            for index, is_stride in self._sources
        ]
        result: torch.Tensor = self._graph(values)[0]
        return result

    def _compile(self, graph: torch.fx.GraphModule, examples: list[Any]) -> Callable[..., Any]:
        compiled: Any = compile_fx(graph, examples, inner_compile=self._compile_inner)

        def run(*arguments: Any) -> Any:
            self._graph_arguments = arguments
            return compiled(*arguments)

        return run

    def _compile_inner(self, *arguments: Any, **options: Any) -> Any:
        self._graph = compile_fx_inner(*arguments, **options)
        return self._graph


def _source(
    argument: Any, examples: Sequence[torch.Tensor], free: list[tuple[int, int, int]]
) -> tuple[int, int | None]:
    """Which of the function's arguments an argument of the graph is, or of which it is the length
    (0) or the stride (1).
    """
    if isinstance(argument, torch.Tensor):
        (index,) = (index for index, example in enumerate(examples) if example is argument)
        return index, None
    found = {(index, is_stride) for value, index, is_stride in free if value == argument}
    assert len(found) == 1, f"{argument} is not one of the examples' lengths and strides {free}"
    return found.pop()

"""A compiled function does what the function does, for any number of rows, and is compiled once."""

from copy import deepcopy

import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo.utils import counters

from quietstar_infer.compiled import CompiledFunction


def add_rows(table_NV: torch.Tensor, row_U: torch.Tensor, sum_SV: torch.Tensor) -> torch.Tensor:
    """Writes into its last argument, as what is kept in slots does."""
    picked_UV = table_NV[row_U]
    sum_SV[row_U] += picked_UV
    return picked_UV.sum(dim=-1)


def table(rows: int, padded: int = 16) -> torch.Tensor:
    return torch.arange(rows * padded, dtype=torch.float32).reshape(rows, padded)[:, :12]


@torch.inference_mode()
def test_any_number_of_rows_of_any_stride_is_computed_without_another_compilation() -> None:
    examples = [table(2), torch.tensor([0, 1, 1]), torch.zeros(5, 12)]
    compiled = CompiledFunction(add_rows, examples, rows=(0, 1))
    before = deepcopy(counters)
    for rows, padded, picked in [(1, 16, [0]), (2, 32, [1]), (5, 12, [4, 0, 2]), (3, 20, [2, 0])]:
        arguments = (table(rows, padded), torch.tensor(picked))
        added, expected_added = torch.ones(5, 12), torch.ones(5, 12)
        expected = add_rows(*arguments, expected_added)
        assert torch.equal(compiled(*arguments, added), expected)
        assert torch.equal(added, expected_added)
    assert counters == before
    wide = (table(3).double(), torch.tensor([1, 2]), torch.zeros(5, 12, dtype=torch.float64))
    assert compiled(*wide).tolist() == wide[0][1:].sum(dim=-1).tolist()


@torch.inference_mode()
def test_engines_of_one_process_compile_the_same_function_as_often_as_they_like() -> None:
    with dynamo_config.patch(recompile_limit=1):
        for slots in (6, 7):
            examples = [table(2), torch.tensor([0, 1, 1]), torch.zeros(slots, 12)]
            compiled = CompiledFunction(add_rows, examples, rows=(0, 1))
            assert compiled(table(3), torch.tensor([1]), torch.zeros(slots, 12)).item() > 0

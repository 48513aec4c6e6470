"""Text and paths as one sequence: the mask of the paper's figure 3."""

import torch

from training.thoughts.layout import PathLayout, may_see, position_ids


def test_which_token_attends_to_which() -> None:
    """Two text tokens, two paths of two tokens each: rows are queries, columns keys."""
    layout = PathLayout(positions=2, per_position=2, path_length=2)
    index = torch.arange(layout.tokens)
    seen = may_see(layout, index[:, None], index[None, :])
    expected = [
        "10 00 00 00 00",
        "11 00 00 00 00",
        "10 10 00 00 00",
        "10 11 00 00 00",
        "10 00 10 00 00",
        "10 00 11 00 00",
        "11 00 00 10 00",
        "11 00 00 11 00",
        "11 00 00 00 10",
        "11 00 00 00 11",
    ]
    shown = ["".join("01"[x] for x in row) for row in seen.tolist()]
    assert shown == [row.replace(" ", "") for row in expected]
    assert position_ids(layout, index.device).tolist() == [[0, 1, 1, 2, 1, 2, 2, 3, 2, 3]]

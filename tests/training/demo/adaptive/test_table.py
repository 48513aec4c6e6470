"""The table of adaptive thinking."""

from tests.support.training.adaptive import ADAPTIVE
from training.demo.adaptive.table import adaptive_table


def test_a_row_per_threshold() -> None:
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in adaptive_table({"adaptive": ADAPTIVE}).splitlines()
    )
    assert head[:3] == ["thinks before a token", "tokens thought about, %", "passes per token"]
    right = ["0.0", "20.0"]
    assert rows == [
        ["never (b=0)", "0.0", "1.00", *right, *right, "0.9000", "0.9000"],
        ["always (b=4)", "100.0", "5.00", *["100.0", "80.0"] * 2, "0.1000", "0.1000"],
        ["over 0.1 nats (default)", "20.0", "2.00", *["100.0", "60.0"] * 2, "0.2000", "0.2000"],
    ]

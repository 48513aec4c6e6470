"""Plans that make no sense."""

import pytest

from loadtest.errors import LoadTestError
from loadtest.traffic.plan import Extent


def test_an_extent_that_measures_nothing_or_never_ends_is_refused() -> None:
    for wrong in ({"seconds": None}, {"seconds": 0}, {"requests": 0}, {"warmup": -1}):
        with pytest.raises(LoadTestError):
            Extent(**wrong)

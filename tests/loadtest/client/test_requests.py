"""The requests that are sent."""

import pytest

from loadtest.errors import LoadTestError
from loadtest.sending.runner import prepare
from loadtest.traffic.plan import Target
from tests.support.loadtest.runs import small_plan


def test_fields_that_the_load_tester_sets_itself_are_refused(url: str) -> None:
    with pytest.raises(LoadTestError, match=r"thought_budget cannot be set.*--budgets"):
        prepare(small_plan(url, target=Target(url, extra_body={"thought_budget": 3})))

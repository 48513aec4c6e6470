"""Measures of source code, on a checkout whose every measure is known."""

from pathlib import Path

import pytest

from benchmarks.code.measures import ALL, CodeMeasures, measure_checkout


@pytest.fixture
def measured(checkout: Path) -> dict[str, CodeMeasures]:
    return measure_checkout(checkout)


def test_each_package_is_measured_and_the_tests_apart(measured: dict[str, CodeMeasures]) -> None:
    assert set(measured) == {"one", "two", "tests", ALL}
    assert len(measured["one"].file_lines) == 5
    assert len(measured[ALL].file_lines) == 8


def test_functions_have_lengths_and_annotations(measured: dict[str, CodeMeasures]) -> None:
    rows = measured["one"].rows()
    assert sorted(shape.lines for shape in measured["one"].functions) == [1, 2, 7, 8]
    assert rows["annotated functions"] == "75.0%"
    assert (rows["… longest"], rows["functions over 60 lines"]) == ("8", "0")


def test_names_that_exist_twice_are_counted(measured: dict[str, CodeMeasures]) -> None:
    """`SIZE` and `add` in one; `SIZE` in one and two. `__main__.py` and `_SIZE` do not count."""
    assert measured["one"].repeated_in_a_package == 2
    assert measured["two"].repeated_in_a_package == 0
    assert measured[ALL].repeated_in_a_package == 2
    assert measured[ALL].repeated_across_packages == 1


def test_the_fullest_folder_is_found(measured: dict[str, CodeMeasures]) -> None:
    assert (measured["one"].fullest_folder, measured["one"].modules_in_it) == ("one", 3)


def test_an_import_inside_a_function_makes_no_circle(measured: dict[str, CodeMeasures]) -> None:
    assert (measured["one"].circles, measured["two"].circles) == (1, 0)


def test_equal_lines_are_found_whatever_their_comments(measured: dict[str, CodeMeasures]) -> None:
    assert measured["one"].duplicated == 12
    assert measured["two"].duplicated == 0

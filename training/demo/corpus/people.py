"""The people in the corpus."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    """A first name (one token) and the pronoun that stands for it."""

    name: str
    pronoun: str


PEOPLE = (
    Person("Ann", "she"),
    Person("Ben", "he"),
    Person("Cal", "he"),
    Person("Dee", "she"),
    Person("Eve", "she"),
    Person("Fay", "she"),
    Person("Gus", "he"),
    Person("Hal", "he"),
)

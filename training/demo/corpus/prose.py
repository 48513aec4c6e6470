"""Plain sentences, so that the model's text reads like text between the problems.

A small grammar with agreement in number and pronoun. Nothing here can be calculated.
"""

import random

from training.demo.corpus.people import PEOPLE, Person

PLACES = (
    "in the garden", "by the river", "at the market", "near the old mill", "under the big tree",
    "on the hill", "in the kitchen", "behind the house", "at school", "along the road",
)  # fmt: skip
PASTIMES = (
    ("walks", "walk"), ("sings", "sing"), ("plays", "play"), ("reads", "read"),
    ("sleeps", "sleep"), ("works", "work"), ("waits", "wait"), ("sits", "sit"),
)  # fmt: skip
ADJECTIVES = ("small", "old", "red", "quiet", "happy", "warm", "new", "green", "good", "long")
OBJECTS = ("book", "boat", "hat", "lamp", "letter", "basket", "song", "kite", "story", "chair")
ANIMALS = ("dog", "cat", "bird", "horse", "fox", "goat", "duck", "mouse")
TRANSITIVE = ("sees", "likes", "has", "wants", "paints", "carries", "finds", "makes")
TIMES = ("morning", "evening", "day", "night", "summer", "winter")
WEATHER = ("warm", "cold", "bright", "dark", "quiet", "windy", "sunny", "grey")


def noun_phrase(noun: str, rng: random.Random) -> str:
    """An indefinite noun phrase, with the article that its first sound asks for."""
    adjective = rng.choice(ADJECTIVES)
    article = "an" if adjective[0] in "aeiou" else "a"
    return f"{article} {adjective} {noun}"


def scene(rng: random.Random) -> str:
    """A sentence that needs no person."""
    if rng.random() < 0.5:
        return f"It is a {rng.choice(WEATHER)} {rng.choice(TIMES)}."
    animal, pastime = rng.choice(ANIMALS), rng.choice(PASTIMES)[0]
    return f"The {rng.choice(ADJECTIVES)} {animal} {pastime} {rng.choice(PLACES)}."


def action(subject: str, rng: random.Random) -> str:
    """What one person does; `subject` is a name or a capitalised pronoun."""
    if rng.random() < 0.5:
        return f"{subject} {rng.choice(PASTIMES)[0]} {rng.choice(PLACES)}."
    noun = rng.choice(OBJECTS + ANIMALS)
    return f"{subject} {rng.choice(TRANSITIVE)} {noun_phrase(noun, rng)}."


def meeting(person: Person, rng: random.Random) -> str:
    """What two people do together."""
    friend = rng.choice([other for other in PEOPLE if other is not person])
    return f"{person.name} and {friend.name} {rng.choice(PASTIMES)[1]} {rng.choice(PLACES)}."


def sentence(rng: random.Random) -> str:
    """One sentence that stands alone."""
    person = rng.choice(PEOPLE)
    kind = rng.randrange(3)
    if kind == 0:
        return scene(rng)
    return action(person.name, rng) if kind == 1 else meeting(person, rng)


def paragraph(rng: random.Random) -> str:
    """Two to five sentences about one person and the day."""
    person = rng.choice(PEOPLE)
    sentences = [scene(rng)] if rng.random() < 0.5 else []
    sentences.append(action(person.name, rng))
    for _ in range(rng.randint(1, 3)):
        pronoun = person.pronoun.capitalize()
        sentences.append(action(pronoun, rng) if rng.random() < 0.7 else meeting(person, rng))
    return " ".join(sentences)

"""Invents English sentences: a small grammar over more than 500 words, spelled words, codes, numbers, dates, times."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Collection
from dataclasses import dataclass

# Deliberately left out: homophones, which cannot be told apart by ear, and words that the synthesizer, without context,
# may mispronounce (read, live, close, wind).
WORDS = {
    "person": """
        farmer doctor teacher baker pilot sailor painter singer driver lawyer nurse soldier student
        neighbor carpenter engineer gardener dentist butcher captain mayor judge waiter tailor shepherd
        artist writer actor dancer banker plumber librarian musician scientist mechanic detective
        grandmother uncle cousin sister brother daughter husband stranger""",
    "name": """
        anna peter maria david laura thomas emma robert julia simon helen victor sarah george alice
        martin lucy henry diana oscar nina edward carla felix olivia hugo""",
    "animal": """
        dog cat rabbit tiger eagle dolphin monkey elephant goat chicken duck frog turtle spider camel
        lion fox squirrel pigeon donkey parrot lizard beaver hamster kangaroo puppy kitten""",
    "animals": "dogs cats rabbits tigers monkeys elephants chickens ducks spiders",
    "food": """
        bread butter cheese banana lemon potato tomato carrot onion pepper rice soup sandwich chocolate
        coffee milk water honey sugar mushroom sausage pancake salad cookie cherry pumpkin yogurt garlic""",
    "foods": "apples bananas potatoes tomatoes carrots cookies eggs oranges",
    "place": """
        kitchen garden library market station school church museum hospital village forest mountain
        river island harbor bridge castle valley office factory theater restaurant bakery stadium hotel
        airport bathroom cellar attic desert""",
    "city": """
        london paris berlin madrid vienna boston chicago denver dublin sydney toronto lisbon prague
        athens moscow cairo tokyo venice oslo geneva""",
    "object": """
        table chair window door mirror lamp bottle basket blanket hammer ladder bicycle umbrella guitar
        violin piano camera telephone computer wallet jacket sweater pencil notebook newspaper envelope
        candle bucket shovel pillow carpet curtain suitcase helmet ticket box clock brush rope letter
        picture necklace whistle drum""",
    "objects": "tables chairs windows bottles tickets pencils candles pictures boxes",
    "did_something_to": """
        carried painted cleaned repaired borrowed dropped opened washed found lost moved lifted pushed
        pulled covered counted watched forgot ordered returned admired measured collected discovered
        kept stole wanted noticed""",
    "did": """
        laughed smiled danced slept waited shouted worked arrived stumbled whispered vanished listened
        traveled fell sang jumped""",
    "do_something_to": """
        bring send open clean repair order check carry move wash cover hide fetch remember describe""",
    "adjective": """
        big small old young happy tired hungry angry clever lazy friendly famous quiet noisy heavy empty
        broken beautiful strange gentle brave careful nervous polite curious wooden golden modern
        ancient narrow simple expensive cheap dirty fresh frozen bitter perfect crooked""",
    "color": "yellow green purple black white brown silver pink gray crimson",
    "adverb": """
        slowly quickly quietly carefully suddenly gently loudly rarely often always never proudly
        secretly patiently finally together""",
    "weather": "sunny cloudy windy rainy foggy stormy warm cold freezing humid dry",
    "where": "behind beside under above near inside outside across around between",
    "subject": """
        question answer problem story secret promise mistake journey holiday lesson reason number
        language birthday""",
    "day": "monday tuesday wednesday thursday friday saturday sunday",
    "month": "january february march april may june july august september october november december",
    "daytime": "morning afternoon evening night",
    "duration": "seconds minutes days months years",
}
# Words as running text are easier to read and to add to than lists of quoted words.
_UNITS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen""".split()  # noqa: SIM905
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
_ORDINALS = """
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth
    fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth""".split()  # noqa: SIM905

TEMPLATES = """
the {adjective} {person} {did_something_to} the {object}
the {person} {did_something_to} a {color} {object} in the {place}
{name} {adverb} {did_something_to} the {adjective} {object}
{name} and {name} {did} {adverb} {where} the {place}
the {animal} {did} {where} the {adjective} {place}
a {adjective} {animal} {did_something_to} my {food}
please {do_something_to} the {object} {where} the {object}
please {do_something_to} the {subject} before {day}
the {weather} {daytime} in {city} was {adjective}
it will be {weather} in {city} on {day}
there are {number} {animals} in the {place}
we need {number} {foods} and some {food} for the {person}
i would like {food} with {food} and {food}
the {person} from {city} has {number} {objects}
{name} will travel from {city} to {city} on {date}
the train to {city} leaves at {time}
the {place} opens at {time} on {day}
my birthday is on {date}
the meeting with {name} is on {day} {date}
wake me up at {time}
{number} plus {number} is {number}
{number} minus {number} is {number}
call {name} at {digits}
the number of the {place} is {digits}
{word} is spelled {spelling}
my name is {name} and my code is {code}
the code for the {object} is {code}
why was the {person} so {adjective} {adverb}
did the {person} tell you the {subject}
where is the {color} {object} of the {person}
it took {number} {duration} to {do_something_to} the {objects}
every {daytime} the {animal} {did} near the {color} {object}
she told {name} a {adjective} {subject} about the {animal}
nobody {did_something_to} the {food} {where} the {object}
i think that {name} {did} in the {place} all {daytime}
turn off the {object} in the {place}
""".strip().splitlines()

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Sentence:
    """`text` is the transcript; `spoken` is for the synthesizer, with the letter a, not the article, as a phoneme."""

    text: str
    spoken: str


class Grammar:
    """Draws sentences; every word list is dealt like a deck of cards, so that all words are equally frequent."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lists = {name: words.split() for name, words in WORDS.items()}
        self._lists["template"] = TEMPLATES
        self._lists["letter"] = list(string.ascii_lowercase)
        self._lists["word"] = sorted(w for w in {w for ws in WORDS.values() for w in ws.split()} if 3 <= len(w) <= 6)
        self._decks: dict[str, list[str]] = {}
        self._phrases: dict[str, Callable[[], str]] = {
            "number": self._number,
            "digits": lambda: " ".join(self._random.choices(_UNITS[:10], k=self._random.randint(3, 6))),
            "time": self._time,
            "date": self._date,
        }

    def sentences(self, count: int, exclude: Collection[str] = ()) -> list[Sentence]:
        """`count` sentences, all different and none of the texts in `exclude`."""
        known = set(exclude)
        drawn: list[Sentence] = []
        while len(drawn) < count:
            sentence = self._sentence()
            if sentence.text not in known:
                known.add(sentence.text)
                drawn.append(sentence)
        return drawn

    def _sentence(self) -> Sentence:
        letters: set[int] = set()  # positions of single letters that are spelled, not words
        words: list[str] = []
        spelled = ""
        for piece in self._deal("template").split():
            slot = _SLOT.fullmatch(piece)
            if slot is None:
                words.append(piece)
            elif slot[1] in ("spelling", "code"):
                added = list(spelled) if slot[1] == "spelling" else self._code().split()
                letters.update(range(len(words), len(words) + len(added)))
                words.extend(added)
            else:
                spelled = self._phrases[slot[1]]() if slot[1] in self._phrases else self._deal(slot[1])
                words.extend(spelled.split())
        for i in range(len(words) - 1):
            if words[i] == "a" and i not in letters and words[i + 1][0] in "aeiou":
                words[i] = "an"
        spoken = ["[['eI]]" if w == "a" and i in letters else w for i, w in enumerate(words)]
        return Sentence(" ".join(words), " ".join(spoken))

    def _deal(self, name: str) -> str:
        deck = self._decks.setdefault(name, [])
        if not deck:
            deck.extend(self._lists[name])
            self._random.shuffle(deck)
        return deck.pop()

    def _number(self) -> str:
        if self._random.random() < 0.15:
            return f"{_UNITS[self._random.randint(1, 9)]} {self._random.choice(['hundred', 'thousand'])}"
        return _below_hundred(self._random.randint(2, 99))

    def _time(self) -> str:
        hour = _UNITS[self._random.randint(1, 12)]
        kind = self._random.randrange(4)
        if kind == 0:
            return f"{hour} o'clock"
        if kind == 1:
            return f"{self._random.choice(['half past', 'quarter past', 'quarter to'])} {hour}"
        if kind == 2:
            return (
                f"{_below_hundred(5 * self._random.randint(1, 5))} minutes {self._random.choice(['past', 'to'])} {hour}"
            )
        return f"{hour} {_below_hundred(self._random.randint(10, 59))}"

    def _date(self) -> str:
        month = self._deal("month")
        day = self._random.randint(1, 28 if month == "february" else 30)
        if day <= 20:
            ordinal = _ORDINALS[day - 1]
        else:
            ordinal = "thirtieth" if day == 30 else f"{_TENS[day // 10 - 2]} {_ORDINALS[day % 10 - 1]}"
        return f"{month} the {ordinal}"

    def _code(self) -> str:
        length = self._random.randint(3, 6)
        return " ".join(
            self._deal("letter") if self._random.random() < 0.7 else _UNITS[self._random.randrange(10)]
            for _ in range(length)
        )


def _below_hundred(number: int) -> str:
    if number < 20:
        return _UNITS[number]
    tens, units = _TENS[number // 10 - 2], number % 10
    return f"{tens} {_UNITS[units]}" if units else tens

"""Sentences for synthetic speech: 280 words, millions of sentences; a small model learns them in minutes.

A sentence is written in lower case, with CAPITALS for letters that are spelled ("enter X I nine"): the
transcript is its lower case, and the voice knows "a" the word from "A" the letter. "basics" has numbers,
dates, times, addresses and commands, "everyday" short clauses and a few spelled letters besides; "an4"
imitates CMU AN4 (letters, numbers, one-word commands), "mixed" has all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "zero one two three four five six seven eight nine".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth"
    " fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
MONTHS = ("january february march april may june july august september october november december").split()
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
NAMES = "anna david emma george jane john lucy mary peter robert sarah thomas".split()
STREETS = "oak maple church forest river park main hill".split()
CITIES = "boston chicago london paris denver pittsburgh".split()

PEOPLE = ["i", "you", "we", "they"]
PERSON = ["he", "she", "my brother", "my sister", "the teacher", "the doctor", *NAMES]
OWNERS = "the my your his her our their".split()
COLOURS = "red green blue black white yellow old new small big".split()
THINGS = "book car chair cup door hat house key letter map phone table ticket window".split()
PLACES = "in on under near behind".split()
WHERE = "at home,at school,in the garden,in the kitchen,at the station,in the city,by the river".split(",")
WHEN = "today,tomorrow,now,this morning,this evening,every day,next week,on the weekend".split(",")
VERBS = "see want need like find".split()  # used as "they see" and "she sees"
MOVES = "walk drive run come".split()
SWITCHES = "light radio music heating water computer".split()
ROOMS = "kitchen garden bedroom office".split()
DO_NOT = "don't "
CANNOT = "i can't"


def cardinal(number: int) -> str:
    """The words of 0 <= number < 1,000,000, without "and".

    >>> cardinal(0), cardinal(42), cardinal(613_007)
    ('zero', 'forty two', 'six hundred thirteen thousand seven')
    """
    if number >= 1000:
        rest = number % 1000
        return f"{cardinal(number // 1000)} thousand" + (f" {cardinal(rest)}" if rest else "")
    if number >= 100:
        rest = number % 100
        return f"{DIGITS[number // 100]} hundred" + (f" {cardinal(rest)}" if rest else "")
    if number >= 20:
        return TENS[number // 10 - 2] + (f" {DIGITS[number % 10]}" if number % 10 else "")
    return (DIGITS + TEENS)[number]


def ordinal(day: int) -> str:
    """The words of a day of the month, 1 to 31.

    >>> ordinal(3), ordinal(20), ordinal(31)
    ('third', 'twentieth', 'thirty first')
    """
    if day <= 20:
        return ORDINALS[day - 1]
    return "thirtieth" if day == 30 else f"{TENS[day // 10 - 2]} {ORDINALS[day % 10 - 1]}"


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def spelled(rng: np.random.Generator, low: int, high: int) -> str:
    """``low`` to ``high`` letters, or a name, spelled."""
    if rng.random() < 0.15:
        return " ".join(pick(rng, NAMES + STREETS + CITIES).upper())
    return " ".join(LETTERS[i] for i in rng.integers(26, size=int(rng.integers(low, high + 1))))


def digits(rng: np.random.Generator, low: int, high: int) -> str:
    """``low`` to ``high`` digits; now and then 0 is "oh"."""
    zero = "oh" if rng.random() < 0.4 else "zero"
    row = rng.integers(10, size=int(rng.integers(low, high + 1)))
    return " ".join(DIGITS[i] if i else zero for i in row)


def number(rng: np.random.Generator) -> str:
    """A number as people read it: a cardinal ("nine hundred two") or in groups ("four forty one")."""
    kind = rng.random()
    if kind < 0.25:
        return cardinal(int(rng.integers(10 ** int(rng.integers(1, 7)))))
    if kind < 0.5:
        return cardinal(int(rng.integers(10, 100)))
    if kind < 0.75:
        return f"{pick(rng, DIGITS[1:])} {cardinal(int(rng.integers(10, 100)))}"
    return f"{cardinal(int(rng.integers(10, 100)))} {cardinal(int(rng.integers(10, 100)))}"


def telephone(rng: np.random.Generator) -> str:
    return f"area code {digits(rng, 3, 3)} {digits(rng, 4, 7)}" if rng.random() < 0.4 else digits(rng, 5, 8)


def date(rng: np.random.Generator) -> str:
    day = ordinal(int(rng.integers(1, 32)))
    month = pick(rng, MONTHS)
    century = pick(rng, ["nineteen", "nineteen", "twenty"])
    year = f"{century} {cardinal(int(rng.integers(10, 100)))}" if rng.random() < 0.7 else ""
    if rng.random() < 0.3:
        return f"the {day} of {month} {year}".strip()
    weekday = f"{pick(rng, WEEKDAYS)} " if not year or rng.random() < 0.2 else ""
    return f"{weekday}{month} {day} {year}".strip()


def clock(rng: np.random.Generator) -> str:
    hour = cardinal(int(rng.integers(1, 13)))
    kind = rng.random()
    if kind < 0.25:
        return f"{hour} o'clock"
    if kind < 0.5:
        return f"{pick(rng, ['half past', 'quarter past', 'quarter to', 'ten past', 'twenty to'])} {hour}"
    minutes = int(rng.integers(1, 60))
    spoken = f"oh {DIGITS[minutes]}" if minutes < 10 else cardinal(minutes)
    return f"{hour} {spoken} {pick(rng, ['A M', 'P M'])}"


def time(rng: np.random.Generator) -> str:
    if rng.random() < 0.3:
        return f"it's {clock(rng)} {pick(rng, ['now', 'in ' + pick(rng, CITIES)])}"
    start = pick(rng, "meet me,call me,wake me up,the train leaves,the bus comes,we'll start".split(","))
    return f"{start} at {clock(rng)}" + (f" on {pick(rng, WEEKDAYS)}" if rng.random() < 0.5 else "")


def address(rng: np.random.Generator) -> str:
    house = cardinal(int(rng.integers(1, 1000)))
    city = f" {pick(rng, CITIES)}" if rng.random() < 0.6 else ""
    return f"{house} {pick(rng, STREETS)} {pick(rng, ['street', 'avenue', 'road'])}{city}"


def command(rng: np.random.Generator) -> str:
    kind = int(rng.integers(5))
    if kind == 0:
        return f"turn {pick(rng, ['on', 'off'])} the {pick(rng, SWITCHES)} in the {pick(rng, ROOMS)}"
    if kind == 1:
        return f"set the {pick(rng, SWITCHES)} to {cardinal(int(rng.integers(100)))}"
    if kind == 2:
        return f"{pick(rng, ['call', 'send a message to', 'write to'])} {pick(rng, NAMES)} {pick(rng, WHEN)}"
    if kind == 3:
        return f"{pick(rng, ['open', 'close'])} {noun(rng)} {pick(rng, ['please', *WHEN])}"
    return f"play song {cardinal(int(rng.integers(1, 1000)))} {pick(rng, ['again', 'please', 'now'])}"


def noun(rng: np.random.Generator) -> str:
    return f"{pick(rng, OWNERS)} {pick(rng, COLOURS) + ' ' if rng.random() < 0.6 else ''}{pick(rng, THINGS)}"


def clause(rng: np.random.Generator) -> str:
    kind = int(rng.integers(7))
    if kind == 0:
        return f"{noun(rng)} is {pick(rng, PLACES)} {noun(rng)}"
    if kind == 1:
        return f"{pick(rng, PEOPLE)} {pick(rng, ['', DO_NOT])}{pick(rng, VERBS)} {noun(rng)}"
    if kind == 2:
        return f"{pick(rng, PERSON)} {pick(rng, VERBS)}s {noun(rng)} {pick(rng, WHERE + WHEN)}"
    if kind == 3:
        return f"{pick(rng, PEOPLE)} {pick(rng, MOVES)} to {pick(rng, CITIES)} {pick(rng, WHEN)}"
    if kind == 4:
        return f"{pick(rng, PERSON)} {pick(rng, ['is', 'was'])} {pick(rng, WHERE)} with {noun(rng)}"
    if kind == 5:
        return f"{pick(rng, PEOPLE)} have {cardinal(int(rng.integers(2, 100)))} {pick(rng, THINGS)}s"
    return f"{pick(rng, ['where is', 'who has', CANNOT + ' find'])} {noun(rng)}"


def census(rng: np.random.Generator) -> str:
    """What AN4's speakers say: letters and numbers, often behind a command."""
    verb = rng.random()
    if verb < 0.25:
        return f"enter {number(rng) if rng.random() < 0.6 else digits(rng, 1, 4)}"
    start = "erase " if verb < 0.37 else "rubout " if verb < 0.53 else ""
    tail = number(rng) if rng.random() < 0.5 else digits(rng, 1, 4)
    return f"{start}{spelled(rng, 1, 6)} {tail}"


def spelling(rng: np.random.Generator) -> str:
    return f"{pick(rng, ['', '', 'my name is ', 'spell '])}{spelled(rng, 3, 7)}"


def one_word(rng: np.random.Generator) -> str:
    return pick(rng, "yes no help go stop start repeat enter erase rubout apostrophe".split())


def few_digits(rng: np.random.Generator) -> str:
    return digits(rng, 3, 7)


Kind = Callable[[np.random.Generator], str]
EVERYDAY: dict[Kind, float] = {
    clause: 6, command: 4, time: 3, date: 3, few_digits: 2, telephone: 1, address: 2, spelling: 1, census: 1,
}  # fmt: skip
BASICS: dict[Kind, float] = {
    few_digits: 2, telephone: 1, number: 2, date: 3, time: 3, address: 2, command: 3,
}  # fmt: skip
AN4: dict[Kind, float] = {
    census: 14, spelling: 3, number: 2, telephone: 2, date: 2, one_word: 2, address: 1,
}  # fmt: skip
STYLES = {"basics": BASICS, "everyday": EVERYDAY, "an4": AN4, "mixed": {**EVERYDAY, **AN4}}


def sentence(rng: np.random.Generator, style: str = "everyday") -> str:
    """Draws one sentence; spelled letters are CAPITALS.

    >>> sentence(np.random.default_rng(5), "an4")
    'two nine zero two three five four'
    """
    kinds = STYLES[style]
    weights = np.array(list(kinds.values()), dtype=float)
    return list(kinds)[int(rng.choice(len(kinds), p=weights / weights.sum()))](rng)

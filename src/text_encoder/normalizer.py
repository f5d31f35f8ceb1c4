"""One normaliser for every text: lower-case letters, the apostrophe, and one space between words.

The rule, in order:

1. Letters are lower-cased and folded to a-z where Unicode gives them an a-z base (``é`` -> ``e``, ``ﬁ`` ->
   ``fi``) or English spells them so (``ß`` -> ``ss``, ``æ`` -> ``ae``). A letter with no such base (Cyrillic,
   Greek, Han) stays as it is, never lost from a reference: metrics count it, encoders refuse it. So does a
   character that this Python's Unicode does not know yet, or that is for private use.
2. Digits of any script become words. ``23`` is a cardinal, ``1st`` an ordinal, ``90s`` a plural, ``1,000``
   one thousand, ``3.5`` three point five, ``$5.20`` five dollars and twenty cents, ``5½`` five and one half,
   ``-5`` minus five. With a leading zero or more than twelve digits, a number is read digit by digit. Years
   and times are read as plain cardinals.
3. ``& % + @ $ £ € ¥ ₹ ¢ = # № § ° × ÷ ± ² ³`` become words. Every other symbol, all punctuation and every
   hyphen become a space; invisible format characters vanish.
4. Typographic apostrophes become ``'``, which stays where it touches a letter; two in a row are a quote mark.

The result is a fixed point: ``normalize(normalize(x)) == normalize(x)``.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from num2words import num2words

_CLEAN = re.compile(r"(?:'?[a-z]+(?:'[a-z]+)*'?(?: (?!$)|$))*")
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼʻʹ`´′＇", "'"))
_SYMBOLS = {
    "&": "and", "%": "percent", "+": "plus", "@": "at", "=": "equals", "#": "number", "№": "number",
    "§": "section", "°": "degrees", "×": "times", "÷": "divided by", "±": "plus minus", "²": "squared",
    "³": "cubed", "¢": "cents", "\u2212": "minus",
}  # fmt: skip
_CURRENCIES = {  # one, many, hundredths
    "$": ("dollar", "dollars", "cents"), "£": ("pound", "pounds", "pence"), "€": ("euro", "euros", "cents"),
    "¥": ("yen", "yen", "sen"), "₹": ("rupee", "rupees", "paise"),
}  # fmt: skip
_SYMBOL_TABLE = str.maketrans({symbol: f" {word} " for symbol, word in _SYMBOLS.items()})
_CURRENCY_TABLE = str.maketrans({symbol: f" {names[0]} " for symbol, names in _CURRENCIES.items()})
_LATIN = {
    "ß": "ss",
    "æ": "ae",
    "œ": "oe",
    "ø": "o",
    "ł": "l",
    "đ": "d",
    "ð": "d",
    "þ": "th",
    "ı": "i",
    "ħ": "h",
}

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)*|(?<![\w.])(?:\.\d+)+"
_SCALE = r"(?:\s?(?P<scale>hundred|thousand|million|billion|trillion)\b)?"
_SIGN = "[" + "".join(_CURRENCIES) + "]"
_MINUS = re.compile(rf"(?:(?<=\s)|^)-(?={_SIGN}?\.?\d)")
_MONEY = re.compile(
    rf"(?P<sign>{_SIGN})\s?(?P<amount>{_NUMBER}){_SCALE}|(?<![\d.,])(?P<after>{_NUMBER})\s?(?P<unit>{_SIGN})"
)
_FRACTION = re.compile(r"(?P<whole>\d\s*)?(?<!\d)(?P<top>\d+)\u2044(?P<bottom>\d+)")
_QUOTE_AT_DIGIT = re.compile(r"'(?=\d)|(?<=\d)'(?!s\b)")
_NUMERAL = re.compile(rf"(?P<number>{_NUMBER})(?:(?P<suffix>'?s|st|nd|rd|th)\b)?")

_SPOKEN_SIGNS = re.compile("[0-9\u2044" + "".join(map(re.escape, [*_SYMBOLS, *_CURRENCIES])) + "]")
_SILENT = re.compile(r"[^a-z'\u0080-\U0010ffff]+|''+")


def normalize(text: str) -> str:
    """``text`` in the alphabet of the recogniser, by the rule in this module's docstring.

    >>> normalize("It's 23 & 50%")
    "it's twenty three and fifty percent"
    >>> normalize("The 1st café cost $5, i.e. 3.5 times 1,000")
    'the first cafe cost five dollars i e three point five times one thousand'
    >>> normalize("Привет, World!")
    'привет world'
    """
    text = text.lower()
    if _CLEAN.fullmatch(text):  # corpora are mostly clean already
        return text
    text = text.translate(_APOSTROPHES)
    if not text.isascii():
        text = _fold(text)
    if _SPOKEN_SIGNS.search(text):
        text = _QUOTE_AT_DIGIT.sub(" ", text)
        text = _MINUS.sub(" minus ", text)
        text = _MONEY.sub(_say_money, text).translate(_CURRENCY_TABLE).translate(_SYMBOL_TABLE)
        text = _FRACTION.sub(_say_fraction, text).replace("\u2044", " ")
        text = _NUMERAL.sub(_say_number, text)
    return " ".join(word for word in _SILENT.sub(" ", text).split() if word != "'")


def _fold(text: str) -> str:
    """Accents off where an a-z base exists, digits of any script to ASCII, punctuation and symbols without a
    word to spaces; letters of other alphabets keep the marks that belong to them."""
    # A fraction or a superscript must not melt into the digit before it: 5½ is not 51⁄2.
    text = "".join(_apart(character) for character in text)
    kept: list[str] = []
    for character in unicodedata.normalize("NFKD", text).lower().translate(_APOSTROPHES):
        kind = unicodedata.category(character)
        if character.isascii() or character in _SYMBOLS or character in _CURRENCIES or character == "\u2044":
            kept.append(character)
        elif character in _LATIN:
            kept.append(_LATIN[character])
        elif _is_letter(kind):
            kept.append(character)
        elif kind[0] == "M":
            before = unicodedata.category(kept[-1]) if kept and not kept[-1].isascii() else ""
            if before[:1] == "M" or _is_letter(before):
                kept.append(character)
        elif kind == "Nd":
            kept.append(str(unicodedata.decimal(character)))
        elif kind[0] == "N":
            kept.append(f" {unicodedata.numeric(character):.12g} ")
        elif kind != "Cf" or character == "\u200b":  # zero-width space
            kept.append(" ")
    return unicodedata.normalize("NFC", "".join(kept))


def _is_letter(kind: str) -> bool:
    return kind[:1] == "L" or kind in ("Cn", "Co")


def _apart(character: str) -> str:
    if character in _SYMBOLS:
        return f" {_SYMBOLS[character]} "
    if unicodedata.category(character) == "No":
        return f" {character} "
    return " " if character in "™®©" else character


def _say_money(match: re.Match[str]) -> str:
    one, many, hundredths = _CURRENCIES[match["sign"] or match["unit"]]
    amount = (match["amount"] or match["after"]).replace(",", "")
    scale = match["scale"]
    whole, _, rest = amount.partition(".")
    if not scale and re.fullmatch(r"\d\d", rest):
        coins = f"{_cardinal(str(int(rest)))} {hundredths}" if int(rest) else ""
        if not whole.strip("0"):
            return f" {coins or f'zero {many}'} "
        joint = " and " if coins else ""
        return f" {_cardinal(whole)} {one if whole == '1' else many}{joint}{coins} "
    words = f"{_number(amount)} {scale}" if scale else _number(amount)
    return f" {words} {one if words == 'one' else many} "


def _say_fraction(match: re.Match[str]) -> str:
    bottom = match["bottom"]
    part = {"2": "half", "4": "quarter"}.get(bottom) or _ordinal(bottom)
    plural = "" if match["top"] == "1" else "s"
    part = "halves" if part + plural == "halfs" else part + plural
    joint = f"{match['whole']} and " if match["whole"] else " "
    return f"{joint}{_cardinal(match['top'])} {part} "


def _say_number(match: re.Match[str]) -> str:
    number, suffix = match["number"].replace(",", ""), match["suffix"]
    if not suffix:
        return f" {_number(number)} "
    if suffix in ("s", "'s"):
        words = _number(number)
        if words.endswith("y"):
            return f" {words[:-1]}ies "
        return f" {words}es " if words.endswith("x") else f" {words}s "
    return f" {_ordinal(number)} " if number.isdigit() else f" {_number(number)} {suffix} "


def _number(number: str) -> str:
    """Words of ``12``, ``12.34`` (digit by digit after the point) or ``.5``."""
    whole, *parts = number.split(".")
    spoken = ([_cardinal(whole)] if whole else []) + [
        word for part in parts for word in ("point", *map(_cardinal, part))
    ]
    return " ".join(spoken)


@lru_cache(maxsize=65536)
def _cardinal(digits: str) -> str:
    if len(digits) > 12 or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(map(_cardinal, digits))
    return _letters_only(num2words(int(digits)))


def _ordinal(digits: str) -> str:
    if len(digits) > 1 and digits[0] == "0":
        return f"{_cardinal(digits[:-1])} {_ordinal(digits[-1])}"
    return (
        _letters_only(num2words(int(digits), to="ordinal"))
        if len(digits) <= 12
        else _cardinal(digits) + " th"
    )


def _letters_only(words: str) -> str:
    return " ".join(words.replace(",", " ").replace("-", " ").split())

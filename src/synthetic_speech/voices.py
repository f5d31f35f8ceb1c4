"""Who speaks: accents x variants of eSpeak NG x pitch x rate; half are women; no variant is in two splits.

Variants that sound alike (mean log spectra of one sentence less than 0.3 apart) are in one split. Left out:
whispers, creaks, robots, and voices so muffled or high that words are hard to tell.
"""

from __future__ import annotations

from src.synthetic_speech.espeak import Voice
from src.utils.seeding import addressed_rng

ACCENT_SHARES = {
    "en-us": 0.4, "en": 0.15, "en-gb-x-rp": 0.1, "en-us-nyc": 0.1, "en-gb-scotland": 0.075, "en-029": 0.075,
    "en-gb-x-gbclan": 0.05, "en-gb-x-gbcwmd": 0.05,
}  # fmt: skip

WOMEN = {
    "train": "Alicia Andrea Annie belinda f1 f2 f3 f5 grandma zac".split(),
    "dev": ["shelby"],
    "test": "aunty f4 linda".split(),
}
MEN = {
    "train": (
        "Alex Andy AnxiousAndy Gene Gene2 Lee Mario Michael Mike Nguyen Reed RicishayMax RicishayMax2 Storm "
        "Tweaky adam antonio boris david ed edward edward2 gustave ian john kaukovalta klatt3 klatt4 klatt6 "
        "m1 m2 m3 m4 m6 m7 marcelo max mike2 norbert pablo paul pedro quincy sandro travis"
    ).split(),
    "dev": "Denis rob robert victor".split(),
    "test": "Diogo Hugo m8 michel".split(),
}


def draw_voices(split: str, count: int, seed: int) -> list[Voice]:
    """``count`` voices of ``split``, women and men in turn; voice i depends on (seed, split, i) alone.

    >>> draw_voices("test", 5, seed=0)[:2] == draw_voices("test", 2, seed=0)
    True
    """
    orders = [
        addressed_rng(seed, "variants", split, i).permutation(sex[split])
        for i, sex in enumerate((WOMEN, MEN))
    ]
    voices = []
    for i in range(count):
        rng = addressed_rng(seed, "voice", split, i)
        order = orders[i % 2]
        voices.append(
            Voice(
                accent=str(rng.choice(list(ACCENT_SHARES), p=list(ACCENT_SHARES.values()))),
                variant=str(order[i // 2 % len(order)]),
                rate=int(rng.integers(135, 200)),
                pitch=int(rng.integers(30, 70)),
                range=int(rng.integers(30, 75)),
                word_gap=int(rng.choice([0, 0, 0, 1, 3, 6])),
            )
        )
    return voices

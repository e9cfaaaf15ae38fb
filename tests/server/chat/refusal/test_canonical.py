"""The canonical form undoes disguises and leaves ordinary texts alone."""

# ruff: noqa: RUF001 - texts of many scripts

from __future__ import annotations

import sys
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.attacks import LOSSLESS
from turnwise_server.chat.refusal.canonical import canonical
from turnwise_server.chat.refusal.lookalikes import LOOKALIKES
from turnwise_server.chat.refusal.spelling import _ONE_LETTER_WORDS

HARMLESS = (
    "How do I bake a chocolate cake for my little brother?",
    "Kill the Python process on port 8000, then restart it.",
    "Is 3 kg of flour enough for 12 people, or should I buy 5?",
    "Dear Anna, thanks for the photos!\n\nSee you in May.",
)
ORDINARY = (
    "What is the plural of cactus? I never know it.",
    "Où est la gare ? Il y a à Paris un café que j'aime bien, près de l'Opéra.",
    "Größe und Maß: fünf Äpfel, zwölf Brötchen.",
    "Quiero ir al cine mañana por la tarde con mi hermana.",
    "Gdzie jest mój kot? Śpi w kuchni i o niczym nie wie.",
    "Hôm nay trời đẹp quá, chúng ta đi dạo bên hồ nhé.",
    "Скажи, пожалуйста, где здесь хорошая пекарня? А я и в магазин зайду.",
    "Де тут гарна їдальня, і що в ній їсти?",
    "Πού είναι η στάση του λεωφορείου και πότε έρχεται;",
    "Որտե՞ղ է գրադարանը։",
    "איפה הספרייה, ומתי היא נפתחת?",
    "שָׁלוֹם לְכֻלָּם",
    "أين المكتبة، ومتى تفتح أبوابها؟",
    "كِتَابٌ جَدِيدٌ",
    "कल सुबह बारिश होगी, छाता लेकर जाना।",
    "আজ আকাশ খুব পরিষ্কার।",
    "இன்று வானம் தெளிவாக உள்ளது.",
    "วันนี้ท้องฟ้าแจ่มใสมาก ที่นี่มีน้ำดื่มไหม",
    "ዛሬ ሰማዩ ጥርት ብሏል።",
    "დღეს კარგი ამინდია.",
    "今天天气很好,我们去公园散步吧。",
    "明日は友だちとTシャツを買いに行きます。",
    "오늘은 날씨가 좋아서 좀 더 잘 수 있어.",
    "Ọjọ́ dára lónìí, ẹ jẹ́ ká rìn.",
    "The U.S.A. and J. R. Smith, e.g. at 5 a.m., i.e. early; 20 μm, 10 kΩ, x² + y³.",
    "for i in range(10): total += x[i] * y_i  # a-b",
    "👩‍🍳 cooks 🇳🇴 soup 👍🏽",
)


def folded(text: str) -> str:
    """What Unicode folds, and nothing else: the joiners and selectors of emoji are invisible."""
    shown = "".join(sign for sign in text if sign not in "\u200d\ufe0f")
    return unicodedata.normalize("NFKC", shown)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_texts_of_many_scripts_stay_as_they_are(text: str) -> None:
    assert canonical(text) == folded(text)


@pytest.mark.parametrize("text", HARMLESS)
@pytest.mark.parametrize("disguise", LOSSLESS.values(), ids=LOSSLESS.keys())
def test_disguises_that_lose_nothing_are_undone(disguise, text: str) -> None:  # type: ignore[no-untyped-def]
    assert canonical(disguise(text)) == canonical(text)


words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=9).map(lambda word: word.replace("|", ""))


@given(st.lists(words, min_size=1, max_size=12).map(" ".join), st.sampled_from(sorted(LOSSLESS)))
@settings(max_examples=150, deadline=None)
def test_any_latin_words_come_out_of_their_disguises(text: str, name: str) -> None:
    if name == "homoglyph" and not set(text) - set("aceopxyi "):
        return  # nothing on the line tells that the letters are Latin
    assert canonical(LOSSLESS[name](text)) == canonical(text)


@given(st.text(st.characters(), max_size=60))
@settings(max_examples=500, deadline=None)
def test_the_canonical_form_of_any_unicode_is_its_own_canonical_form(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once


tricky = st.text(
    "ab cdот\u0301\u0316\u0323\u0334\u00ad\u200b \n\t.-_*а|сорηβ!?AВ1\u3000ａ\uff9eが각ᄀ\u0f73≠ﷺᴀ🅰é",
    max_size=40,
)


@given(tricky)
@settings(max_examples=1000, deadline=None, derandomize=True)
def test_the_canonical_form_of_tricky_mixtures_is_its_own_canonical_form(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once


def test_the_canonical_form_of_every_character_is_its_own_canonical_form() -> None:
    changed = []
    for first in range(0, sys.maxunicode + 1, 64):
        text = canonical("x".join(map(chr, range(first, min(first + 64, sys.maxunicode + 1)))))
        if canonical(text) != text:
            changed.append(hex(first))
    assert changed == []


def test_nothing_invisible_is_left() -> None:
    text = canonical(
        "".join(chr(code) for code in range(0xE0000, 0xE1000)) + "a\u202e\u2066\ufeff\x00\ud800b"
    )
    assert text == "ab"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b a k e   m e   a   c a k e !", "bake me a cake!"),
        ("b.a.k.e it", "bake it"),
        ("b-a-k-e it", "bake it"),
        ("b_a_k_e it", "bake it"),
        ("the F.B.I. and the U.S.S.R. met", "the F.B.I. and the U.S.S.R. met"),
        ("il y a à boire", "il y a à boire"),
        ("cooooooool!!!!!!", "coool!!!"),
        ("1000000", "1000000"),
        ("ʙᴀᴋᴇ 🅱🅰🅺🅴 ⓑⓐⓚⓔ 𝖇𝖆𝖐𝖊", "bake bake bake bake"),
        ("b̶a̶k̶e̶", "bake"),
        ("one     two\r\n\r\n\r\nthree", "one  two\n\nthree"),
        ("хор и сор", "хор и сор"),
        ("they sing in the хор", "they sing in the xop"),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert canonical(text) == expected


def test_letters_count_as_words_together_with_what_looks_like_them() -> None:
    """Else joining letters after folding them would differ from joining them before."""
    for sign, letter in LOOKALIKES.items():
        if sign.lower() in _ONE_LETTER_WORDS:
            assert letter.lower() in _ONE_LETTER_WORDS, sign


@pytest.mark.parametrize(
    "unit", ["\u0300\u0316", "\uff9e\u0316", "ﷺ", "a ", "m.", "m b  ", "bомб ", "\u200ba", "е\n", "é\u0323"]
)
def test_time_grows_no_faster_than_the_text(unit: str) -> None:
    short, long = (("a" + unit * (chars // len(unit))) for chars in (20_000, 160_000))
    canonical(short)
    started = time.process_time()
    canonical(short)
    middle = time.process_time()
    canonical(long)
    assert time.process_time() - middle < 8 * 4 * (middle - started) + 0.2

"""Sources, licences and roles of the texts the detector learns from; every text here is harmless and invented."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from turnwise_training.errors import ConfigurationError, DataError
from turnwise_training.safety.config import EncoderSettings, OrdinaryFile, SafetyConfig
from turnwise_training.safety.contrasts import written_rows
from turnwise_training.safety.corpus import census, read_corpus
from turnwise_training.safety.labels import LABELS, labels_of
from turnwise_training.safety.near_duplicates import near_duplicates
from turnwise_training.safety.rows import SafetyRow, permitted, read_labelled, read_ordinary

TOPICS = ("photosynthesis in green leaves", "the rules of table tennis", "medieval cathedral windows")


def labelled(text: str, *, source: str, label: str = "safe", licence: str = "MIT") -> dict[str, str]:
    """Return a row of a labelled file."""
    category = "none" if label == "safe" else "fraud"
    return {"prompt": text, "label": label, "category": category, "source": source, "license": licence}


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(text: str, *, source: str = "one", licence: str = "MIT") -> SafetyRow:
    """Return a harmless row."""
    return SafetyRow(text, False, frozenset(), source, licence, "ordinary")


@pytest.mark.parametrize(
    "licence", ["MIT", "MIT (GPT-4 text)", "Apache-2.0", "CC0/Apache-2.0", "CC-BY-4.0", "CC-BY-SA-3.0"]
)
def test_training_may_read_permissive_rows(licence: str) -> None:
    assert permitted([row("a", licence=licence)], licences="permissive", excluded=())


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "unstated", "", "CDLA-Sharing-1.0"])
def test_training_may_not_read_other_rows_unless_all_are_asked_for(licence: str) -> None:
    rows = [row("a", licence=licence)]
    assert permitted(rows, licences="permissive", excluded=()) == []
    assert permitted(rows, licences="all", excluded=()) == rows


def test_an_excluded_source_takes_its_parts_with_it() -> None:
    rows = [row("a", source="set/part"), row("b", source="set"), row("c", source="other")]
    assert permitted(rows, licences="all", excluded=("set",)) == rows[2:]


def test_borderline_rows_are_passed_over(tmp_path: Path) -> None:
    rows = [labelled("a", source="s", label=label) for label in ("safe", "borderline", "unsafe")]
    assert [each.unsafe for each in read_labelled(write_rows(tmp_path / "x.jsonl", rows))] == [False, True]


def test_a_row_without_a_licence_is_refused_without_showing_its_text(tmp_path: Path) -> None:
    without = {key: value for key, value in labelled("the text", source="s").items() if key != "license"}
    path = write_rows(tmp_path / "x.jsonl", [without])
    with pytest.raises(DataError, match=r"x\.jsonl.*no 'license'") as failure:
        list(read_labelled(path))
    assert "the text" not in str(failure.value)


def test_an_unknown_label_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "x.jsonl", [labelled("a", source="s", label="maybe")])
    with pytest.raises(DataError, match="safe, unsafe or borderline, not 'maybe'"):
        list(read_labelled(path))


def test_ordinary_texts_are_the_first_words_of_users(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"Hello {i}"}, {"role": "assistant", "content": "Hi"}]}
        for i in range(5)
    ]
    path = write_rows(tmp_path / "x.jsonl", rows)
    found = read_ordinary(path, source="x", licence="MIT", most=3, seed=1)
    assert len(found) == 3
    assert all(each.text.startswith("Hello") and not each.unsafe for each in found)


def test_categories_of_data_sets_become_labels() -> None:
    assert labels_of("sexual_minors") == frozenset({"sexual", "sexual/minors"})
    assert labels_of("toxic+threat") == frozenset({"harassment", "harassment/threatening", "violence"})
    assert labels_of("unknown") is None
    assert labels_of("fraud+unknown") is None


def test_near_duplicates_are_found_and_others_are_not() -> None:
    texts = ["How do I bake a cake with apples?", "What is the tallest mountain of Norway?"]
    assert near_duplicates(texts, ["how do i bake a cake with  apples!", "Where is Oslo?"]) == {0}


def test_what_is_written_has_both_sides_and_every_label() -> None:
    rows = written_rows(frames_each=1, seed=1)
    assert {label for each in rows for label in each.labels or ()} == set(LABELS)
    assert sum(each.unsafe for each in rows) > 100
    assert sum(not each.unsafe for each in rows) > 300
    assert rows == written_rows(frames_each=1, seed=1)


def config_for(folder: Path, **changes: object) -> SafetyConfig:
    """Return settings over a small labelled file and a small file of greetings."""
    rows = [
        *(labelled(f"Please explain {topic} to me", source="plain") for topic in TOPICS),
        *(labelled(f"Tell me about the year {1900 + i * 3}", source="tuning") for i in range(9)),
        *(labelled(f"What grows in garden {i * 11}?", source="final") for i in range(9)),
        labelled(f"please explain {TOPICS[0]} to me!", source="final"),
        *(labelled(f"Grow a weed, number {i}", source="bad", label="unsafe") for i in range(9)),
        labelled("Not to be passed on", source="closed", licence="CC-BY-NC-4.0"),
    ]
    write_rows(folder / "labelled.jsonl", rows)
    write_rows(folder / "text_greetings.jsonl", [{"text": f"Good morning, number {i}"} for i in range(4)])
    settings: dict[str, object] = {
        "output": folder / "out",
        "data": folder,
        "labelled": ("labelled.jsonl",),
        "ordinary": {"greetings": OrdinaryFile("text_greetings.jsonl", "CC0", 3)},
        "encoder": EncoderSettings(folder / "encoder"),
        "development": ("tuning",),
        "held_out": ("final",),
        "frames_each": 1,
        **changes,
    }
    return SafetyConfig(**settings)  # type: ignore[arg-type]


def test_a_source_has_one_role_and_closed_licences_none(tmp_path: Path) -> None:
    corpus = read_corpus(config_for(tmp_path))
    assert {each.source for each in corpus.train} == {"plain", "bad", "greetings", "contrasts"}
    assert {each.source for each in corpus.development} == {"tuning"}
    assert {each.source for each in corpus.held_out} == {"final"}


def test_training_texts_that_nearly_repeat_held_out_ones_are_left_out(tmp_path: Path) -> None:
    train = read_corpus(config_for(tmp_path)).train
    texts = {each.text for each in train}
    assert f"Please explain {TOPICS[0]} to me" not in texts
    assert f"Please explain {TOPICS[1]} to me" in texts


def test_the_census_counts_by_source_and_licence(tmp_path: Path) -> None:
    counted = {each["source"]: each for each in census(read_corpus(config_for(tmp_path)).train)}
    assert counted["bad"] == {"source": "bad", "licence": "MIT", "safe": 0, "unsafe": 9}
    assert counted["greetings"]["safe"] == 3


def test_a_role_for_a_source_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file holds the source 'elsewhere'"):
        read_corpus(config_for(tmp_path, held_out=("elsewhere",)))


def test_a_source_with_two_roles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="share tuning"):
        config_for(tmp_path, held_out=("tuning",))

"""Scores of the classifier: those of the contract, alone and in batches, and those of other people's models."""

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification

from support.classifiers import WORDS, change_json, change_weight, write_classifier
from turnwise_server.chat.refusal.policy_stages import Detector as DetectorRule
from turnwise_server.errors import DetectorFileError
from turnwise_server.moderation.classifier import (
    PACKAGED_DIRECTORY,
    Classifier,
    compute_alone,
    load_classifier,
    windows,
)
from turnwise_server.moderation.detector import DetectorError, Sample, Scores
from turnwise_server.moderation.linear_model import LinearModel

GOLDEN = json.loads((Path(__file__).parents[2] / "contract/golden_safety.json").read_text())
ROUNDING = 1e-3
"""Texts that share a pass are rounded together, in bfloat16 where the processor can."""
TEXTS = [case["text"] for case in GOLDEN["cases"]]


def load(path: Path | str, labels: dict[str, str] | None = None) -> Classifier:
    rule = DetectorRule(id="small", kind="hf_sequence_classification", path=str(path), labels=labels)
    return load_classifier(rule)


@pytest.fixture(scope="module")
def shipped() -> Iterator[Classifier]:
    classifier = load("builtin:safety")
    yield classifier
    asyncio.run(classifier.close())


async def scores_of(classifier: Classifier, *texts: str) -> list[Scores]:
    return list(await classifier.score([Sample(text) for text in texts]))


async def scores_at_last(classifier: Classifier, *texts: str) -> list[Scores]:
    found = await scores_of(classifier, *texts)
    await classifier.close()
    return found


@pytest.fixture
def score() -> Callable[[Path, str], Scores]:
    """What a classifier in a directory says of a text."""
    return lambda path, text: asyncio.run(scores_at_last(load(path), text))[0]


def logits_of(path: Path, text: str) -> torch.Tensor:
    """What `transformers` gives a text of a tiny classifier, shape (labels,)."""
    ids = [1, *(WORDS.index(word) for word in text.split()), 2]
    with torch.inference_mode():
        logits: torch.Tensor = (
            BertForSequenceClassification.from_pretrained(path)(torch.tensor([ids])).logits[0].double()
        )
    return logits


async def test_the_shipped_detector_gives_the_golden_scores(shipped: Classifier) -> None:
    for found, case in zip(await scores_of(shipped, *TEXTS), GOLDEN["cases"], strict=True):
        assert found == pytest.approx(case["scores"], abs=GOLDEN["tolerance"])


async def test_the_shipped_detector_says_what_it_is(shipped: Classifier) -> None:
    assert shipped.id == "small"
    assert shipped.sha256 == GOLDEN["sha256"]["model.safetensors"]
    assert shipped.labels == frozenset(GOLDEN["labels"])
    assert shipped.thresholds == GOLDEN["thresholds"]


async def test_a_text_scores_alone_as_among_others(shipped: Classifier) -> None:
    together = await scores_of(shipped, *TEXTS)
    for text, found in zip(TEXTS, together, strict=True):
        assert (await scores_of(shipped, text))[0] == pytest.approx(found, abs=ROUNDING)


async def test_many_callers_get_their_own_scores(shipped: Classifier) -> None:
    expected = await scores_of(shipped, *TEXTS)
    found = await asyncio.gather(*(scores_of(shipped, text) for text in TEXTS for _ in range(3)))
    for place, (each,) in enumerate(found):
        assert each == pytest.approx(expected[place // 3], abs=ROUNDING)


async def test_a_long_text_scores_as_the_highest_of_its_windows(shipped: Classifier) -> None:
    text = "Bread needs flour, water, salt and time. " * 60
    (whole,), parts = await scores_of(shipped, text), await scores_of(shipped, *windows(text, 1200, 200))
    assert whole == pytest.approx(
        {label: max(part[label] for part in parts) for label in whole}, abs=ROUNDING
    )


async def test_the_linear_model_scores_alone_where_there_is_no_encoder(tmp_path: Path) -> None:
    shutil.copytree(PACKAGED_DIRECTORY / "linear", tmp_path / "linear")
    facts = json.loads((PACKAGED_DIRECTORY / "safety.json").read_text())
    digests = {name: digest for name, digest in facts["sha256"].items() if name.startswith("linear/")}
    alone = facts | {"ensemble": {"encoder": 0, "linear": 1}, "sha256": digests}
    (tmp_path / "safety.json").write_text(json.dumps(alone))
    (found,) = await scores_at_last(load(tmp_path), "Hello!")
    logits = LinearModel.load(tmp_path / "linear", labels=facts["labels"]).logits(["Hello!"])[0]
    expected = torch.sigmoid(torch.from_numpy(logits) / torch.tensor([*facts["temperature"].values()]))
    assert [found[label] for label in facts["labels"]] == pytest.approx(expected.tolist(), abs=1e-5)


async def test_characters_that_no_encoding_has_are_scored(shipped: Classifier) -> None:
    (found,) = await scores_of(shipped, "half a \ud83d pair")
    assert found.keys() == shipped.labels


async def test_a_text_of_more_windows_than_may_wait_is_refused_at_once(shipped: Classifier) -> None:
    with pytest.raises(DetectorError, match="overloaded"):
        await scores_of(shipped, "a" * 300_000)


async def test_only_the_detectors_own_thread_computes_alone(shipped: Classifier) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(1) as own, ThreadPoolExecutor(1) as later:
            own.submit(compute_alone).result()
            await scores_of(shipped, "Hello!")
            threads = [each.submit(torch.get_num_threads).result() for each in (own, later)]
            assert [*threads, torch.get_num_threads()] == [1, 3, 3]
    finally:
        torch.set_num_threads(before)


async def test_its_thread_ends_with_it(tmp_path: Path) -> None:
    classifier = load(write_classifier(tmp_path, ["safe", "unsafe"]))
    await scores_of(classifier, "a b")
    assert "detector-small_0" in {thread.name for thread in threading.enumerate()}
    running = [thread for thread in threading.enumerate() if thread.name == "detector-small_0"]
    await classifier.close()
    assert sum(thread.is_alive() for thread in running) == len(running) - 1
    with pytest.raises(DetectorError, match="closed"):
        await scores_of(classifier, "a b")


def test_windows_cover_the_whole_text_and_overlap() -> None:
    text = "".join(chr(97 + place % 26) for place in range(2900))
    found = windows(text, 1200, 200)
    assert [len(each) for each in found] == [1200, 1200, 900]
    assert found[0][-200:] == found[1][:200]
    assert windows("short", 1200, 200) == ["short"]
    assert windows("", 1200, 200) == [""]


def test_labels_of_which_one_is_true_share_a_probability(
    tmp_path: Path, score: Callable[[Path, str], Scores]
) -> None:
    path = write_classifier(tmp_path, ["safe", "unsafe"])
    expected = dict(zip(["safe", "unsafe"], logits_of(path, "a b c").softmax(0).tolist(), strict=True))
    assert score(path, "a b c") == pytest.approx(expected, abs=1e-5)


def test_labels_that_may_all_be_true_have_a_probability_each(
    tmp_path: Path, score: Callable[[Path, str], Scores]
) -> None:
    path = write_classifier(tmp_path, ["rude", "lewd"], problem_type="multi_label_classification")
    expected = dict(zip(["rude", "lewd"], logits_of(path, "d e").sigmoid().tolist(), strict=True))
    assert score(path, "d e") == pytest.approx(expected, abs=1e-5)


async def test_safety_json_gives_other_peoples_models_temperatures_and_thresholds(tmp_path: Path) -> None:
    path = write_classifier(tmp_path, ["rude", "lewd"], problem_type="multi_label_classification")
    facts = {"temperature": {"rude": 2.0}, "thresholds": {"lewd": 0.7}, "max_length": 16}
    (path / "safety.json").write_text(json.dumps(facts))
    classifier = load(path)
    (found,) = await scores_of(classifier, "f g")
    await classifier.close()
    rude, lewd = logits_of(path, "f g")
    expected = {"rude": (rude / 2).sigmoid().item(), "lewd": lewd.sigmoid().item()}
    assert found == pytest.approx(expected, abs=1e-5)
    assert classifier.thresholds == {"lewd": 0.7}


def test_a_window_of_many_tokens_is_read_to_its_end(
    tmp_path: Path, score: Callable[[Path, str], Scores]
) -> None:
    path = write_classifier(tmp_path, ["safe", "unsafe"])
    whole, beginning = score(path, "a " * 90 + "j j j"), score(path, "a " * 90)
    assert whole != pytest.approx(beginning, abs=1e-2)
    assert all(whole[label] >= beginning[label] - 1e-6 for label in beginning)


async def test_a_model_that_cannot_pad_scores_texts_one_by_one(tmp_path: Path) -> None:
    path = write_classifier(tmp_path, ["safe", "unsafe"])
    (padded,) = await scores_at_last(load(path), "a b c")
    change_json(path / "config.json", pad_token_id=None)
    one, two = await scores_at_last(load(path), "a b c", "d")
    assert one == pytest.approx(padded, abs=1e-6)
    assert two != pytest.approx(one, abs=1e-3)


def test_weights_that_are_no_numbers_are_refused_at_the_start(tmp_path: Path) -> None:
    path = write_classifier(tmp_path, ["safe", "unsafe"])
    change_weight(path / "model.safetensors", "classifier.bias", torch.tensor([float("nan"), 0.0]))
    with pytest.raises(DetectorFileError, match="fails to score a text"):
        load(path)


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    path = write_classifier(tmp_path, ["safe", "unsafe"])
    change_weight(path / "model.safetensors", "classifier.weight", None)
    with pytest.raises(DetectorFileError, match=r"lacks 1 weights, such as 'classifier.weight'"):
        load(path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = write_classifier(tmp_path, ["safe", "unsafe"])
    change_json(path / "config.json", hidden_size=32)
    with pytest.raises(DetectorFileError, match="cannot be loaded as a sequence classifier"):
        load(path)


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    path = write_classifier(tmp_path, ["safe", "unsafe"])
    (path / "tokenizer.json").write_text("{}")
    with pytest.raises(DetectorFileError, match=r"tokenizer.json cannot be read"):
        load(path)


def test_a_policy_that_maps_a_label_the_model_lacks_is_refused(tmp_path: Path) -> None:
    path = write_classifier(tmp_path, ["safe", "unsafe"])
    with pytest.raises(DetectorFileError, match=r"no label 'toxic'.*labels are 'safe', 'unsafe'"):
        load(path, labels={"toxic": "harm", "unsafe": "harm"})

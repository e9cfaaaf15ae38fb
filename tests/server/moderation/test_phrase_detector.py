"""The detector of phrases: its labels, and scores in the samples' order."""

from turnwise_server.moderation.detector import Detector, Sample
from turnwise_server.moderation.phrase_detector import PhraseDetector


async def test_each_sample_scores_one_for_the_categories_whose_phrases_stand_in_it() -> None:
    detector: Detector = PhraseDetector("advice", {"medical": ["my symptoms"], "legal": ["can I sue"]})
    samples = [Sample("What are your symptoms?"), Sample("hello"), Sample("Can I sue for my\nsymptoms?")]
    assert await detector.score(samples) == [
        {"medical": 0.0, "legal": 0.0},
        {"medical": 0.0, "legal": 0.0},
        {"medical": 1.0, "legal": 1.0},
    ]
    await detector.close()


async def test_its_labels_are_the_categories_that_have_phrases_and_count_from_one_half() -> None:
    detector = PhraseDetector("advice", {"medical": ["my symptoms"], "legal": []})
    assert (detector.id, detector.sha256) == ("advice", None)
    assert detector.labels == {"medical"}
    assert detector.thresholds == {"medical": 0.5}

"""The cache of verdicts: bounded, by policy and text, shared by threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from turnwise_server.chat.refusal.verdict_cache import VerdictCache


def test_a_verdict_is_found_under_its_policy_and_text_only() -> None:
    cache = VerdictCache[str](4)
    cache.put("p", "hello", "fine")
    assert cache.get("p", "hello") == "fine"
    assert cache.get("q", "hello") is None
    assert cache.get("p", "hello ") is None


def test_the_verdict_not_asked_for_longest_is_forgotten() -> None:
    cache = VerdictCache[int](2)
    cache.put("p", "a", 1)
    cache.put("p", "b", 2)
    cache.get("p", "a")
    cache.put("p", "c", 3)
    assert (cache.get("p", "a"), cache.get("p", "b"), cache.get("p", "c")) == (1, None, 3)


def test_lone_surrogates_are_texts_too() -> None:
    cache = VerdictCache[int](2)
    cache.put("p", "\ud800", 1)
    assert cache.get("p", "\ud800") == 1


def test_threads_share_it() -> None:
    cache = VerdictCache[int](50)

    def use(seed: int) -> None:
        for number in range(500):
            key = (seed * 7 + number) % 100
            cache.put("p", str(key), key)
            assert cache.get("p", str(key)) in (key, None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    assert len(cache) == 50

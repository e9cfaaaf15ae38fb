"""Streamed text is cut between what a reader sees as characters."""

import importlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_server.chat.refusal.graphemes import can_cut

CLUSTERS = importlib.import_module("regex").compile(r"\X")
TRICKY = "aé\u0301\u200d\u200c\ufe0f\U0001f3fd👩👧🇫🇷\r\n\u0e33\u0600क्षि\u0d4e각\u1100\u1161\u11a8한\U000e0061\xad日"


@given(st.text(st.one_of(st.sampled_from(TRICKY), st.characters()), max_size=60))
def test_every_cut_is_a_boundary_of_grapheme_clusters(text: str) -> None:
    boundaries = {cluster.end() for cluster in CLUSTERS.finditer(text)}
    for at, (before, after) in enumerate(pairwise(text), start=1):
        assert not can_cut(before, after) or at in boundaries


@pytest.mark.parametrize(
    "text", ["ab", "a b", "日本", "한국", "🎉🎉", "é日", "привет", "مرحبا", "กข", "x\n", "\nx"]
)
def test_ordinary_text_can_be_cut_anywhere(text: str) -> None:
    assert all(can_cut(before, after) for before, after in pairwise(text))

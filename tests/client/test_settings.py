"""Addresses, keys and sampling settings are checked before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnwise_client.errors import UsageError
from turnwise_client.settings import Sampling, change_sampling, read_api_key, server_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("localhost:9000", "http://localhost:9000"),
        ("https://example.org/llm/", "https://example.org/llm"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_is_brought_into_one_form(text: str, address: str) -> None:
    assert server_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://a b",
        "http://u:p@x",
        "http://x?y",
        "http://x\x1b",
        "http://[::1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not the address of a server"):
        server_address(text)


def test_settings_are_changed_and_unset_by_name() -> None:
    sampling = change_sampling(Sampling(), "temperature", "0.5")
    sampling = change_sampling(sampling, "max-tokens", "7")
    sampling = change_sampling(sampling, "seed", "-3")

    assert sampling.as_fields() == {"temperature": 0.5, "max_tokens": 7, "seed": -3}
    assert change_sampling(sampling, "seed", "default").as_fields() == {"temperature": 0.5, "max_tokens": 7}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "2.1"),
        ("temperature", "nan"),
        ("temperature", "hot"),
        ("max_tokens", "0"),
        ("seed", "1.5"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_what_is(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be a .*not '{value}'"):
        change_sampling(Sampling(), name, value)


def test_an_unknown_setting_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="temperature, max_tokens, seed"):
        change_sampling(Sampling(), "heat", "1")


def test_a_key_file_goes_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("tw-file\n")

    assert read_api_key(file, "tw-environment") == "tw-file"
    assert read_api_key(None, " tw-environment ") == "tw-environment"
    assert read_api_key(None, None) is None
    assert read_api_key(None, "") is None


@pytest.mark.parametrize("content", [b"", b"two words", b"two\nlines", "schlüssel".encode(), b"\xff\xfe"])
def test_a_key_that_cannot_be_one_is_refused_and_never_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)

    with pytest.raises(UsageError) as caught:
        read_api_key(file, None)
    assert not content or content.decode("latin-1") not in str(caught.value)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_api_key(tmp_path / "missing", None)

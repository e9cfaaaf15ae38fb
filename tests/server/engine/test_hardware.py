"""Choosing device, number format, threads and memory."""

from __future__ import annotations

import pytest
import torch

from turnwise_server.engine.hardware import (
    available_memory,
    check_quantization,
    choose_device,
    choose_dtype,
    use_threads,
)
from turnwise_server.errors import ConfigurationError

CPU = torch.device("cpu")


def test_automatic_device_is_a_gpu_if_there_is_one() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "mps", "", "cuda:99"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="device"):
        choose_device(name)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "avx512_f": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_automatic_dtype_is_bfloat16_only_where_the_processor_computes_with_it(
    capabilities: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_dtype("auto", CPU) is expected


def test_named_dtype_is_taken_and_an_unknown_one_refused() -> None:
    assert choose_dtype("float32", CPU) is torch.float32
    with pytest.raises(ConfigurationError, match="'int3' is unknown"):
        choose_dtype("int3", CPU)


def test_threads_are_as_told_then_as_the_environment_says_then_the_physical_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"num_physical_cores": 3})
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    use_threads(5)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    use_threads(None)
    monkeypatch.delenv("OMP_NUM_THREADS")
    use_threads(None)
    assert chosen == [5, 3]


def test_available_memory_is_some_but_not_all_of_the_world() -> None:
    assert 2**20 < available_memory(CPU) < 2**50


def test_int8_is_for_cpus() -> None:
    check_quantization("int8", CPU)
    check_quantization("none", torch.device("cuda:0"))
    with pytest.raises(ConfigurationError, match="int8 runs on CPUs only, and the device is 'cuda:0'"):
        check_quantization("int8", torch.device("cuda:0"))
    with pytest.raises(ConfigurationError, match="'int4' is unknown"):
        check_quantization("int4", CPU)

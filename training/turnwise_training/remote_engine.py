"""Samples rollouts through a vLLM server: prompts and answers go over HTTP, weights through a directory both can read.

It was tested against a fake server that speaks this wire, never against vLLM itself. What it relies on of vLLM, and
how to run one beside the training, is in docs/rollouts.md.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from turnwise_training.adapters import POLICY, merged
from turnwise_training.episodes import Sample
from turnwise_training.errors import RunError
from turnwise_training.parallel import Parallel
from turnwise_training.sharding import plain_type

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 600.0
WAITS_S = (0.0, 1.0, 2.0, 4.0, 8.0)
"""What is waited before each attempt of a request that failed for want of a connection or by the server's fault."""

WHOLE_SOFTMAX = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""All that bends the distribution is off; vLLM takes what is not said from the model's generation_config.json."""


class RemoteEngine:
    """Samples on a server that loads the policy anew after every update, `concurrency` answers at once."""

    def __init__(
        self,
        policy: PreTrainedModel,
        parallel: Parallel,
        *,
        url: str,
        weights: Path,
        dtype: torch.dtype,
        end_ids: frozenset[int],
        concurrency: int,
    ) -> None:
        """Load the policy into the server at `url` through the directory `weights`."""
        self._parallel = parallel
        self._weights = weights.resolve()
        self._dtype = dtype
        self._end_ids = end_ids
        self._concurrency = concurrency
        self._client = httpx2.Client(
            base_url=url,
            timeout=httpx2.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=concurrency),
        )
        self.refresh(policy)

    def sample(
        self, prompts: Sequence[list[int]], keys: Sequence[int], *, max_new_tokens: int, temperature: float
    ) -> list[Sample]:
        """Return one answer to each prompt; raises RunError where the server gives none."""

        def answer(prompt: list[int], key: int) -> Sample:
            asked = {"prompt": prompt, "seed": key, "max_tokens": max_new_tokens, "temperature": temperature}
            wanted = {"stop_token_ids": sorted(self._end_ids), "logprobs": 1, "return_token_ids": True}
            return self._read(self._post("/v1/completions", {**asked, **wanted, **WHOLE_SOFTMAX}).json())

        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(answer, prompts, keys))

    def refresh(self, policy: PreTrainedModel) -> None:
        """Write the policy's weights and have the server load them; raises RunError where either fails."""
        weights = self._parallel.whole(policy.state_dict())
        self._parallel.on_main(lambda: self._load(policy, weights))

    def _load(self, policy: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> None:
        """Load from a path that is new each time: a server may have kept what it read at another."""
        folder = self._weights / str(time.time_ns())
        model = plain_type(policy)(policy.config).to(self._dtype)
        model.load_state_dict(merged(policy, weights, POLICY))
        try:
            shutil.rmtree(self._weights, ignore_errors=True)
            model.save_pretrained(folder)
        except (OSError, SafetensorError) as error:
            raise RunError(f"the engine's weights could not be written to {folder}: {error}") from error
        # Source: vllm/entrypoints/serve/dev/{rpc,cache}/api_router.py and vllm's pull request 48284.
        self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
        self._post("/reset_prefix_cache", {})  # else prompts go on from keys and values of the weights before

    def _read(self, completion: Any) -> Sample:
        choice = completion["choices"][0]
        ids: list[int] = choice.get("token_ids") or []
        log_probs: list[float] = (choice.get("logprobs") or {}).get("token_logprobs") or []
        if not 0 < len(ids) == len(log_probs):
            raise RunError(
                f"the engine at {self._client.base_url} sent no token_ids with their logprobs; use a vLLM whose "
                "completions know return_token_ids"
            )
        return Sample(ids, ids[-1] in self._end_ids, log_probs)

    def _post(self, path: str, body: object) -> httpx2.Response:
        problem = ""
        for wait_s in WAITS_S:
            time.sleep(wait_s)
            try:
                response = self._client.post(path, json=body)
            except httpx2.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.is_success:
                return response
            problem = f"HTTP {response.status_code}: {response.text[:500]}"
            if response.status_code < 500:
                break
        url = f"{self._client.base_url}".rstrip("/") + path
        hint = "; start vLLM with VLLM_SERVER_DEV_MODE=1" if "HTTP 404" in problem else ""
        raise RunError(f"{url} of the rollout engine failed: {problem}{hint}")

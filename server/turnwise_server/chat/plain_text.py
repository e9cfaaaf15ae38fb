"""Plain text to token ids and back, without a template. Text never becomes a control token. Safe in any thread."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from turnwise_server.chat.token_text import longest_token_bytes
from turnwise_server.errors import ContextLengthError, RequestError


class PlainText:
    """The tokenizer of a model for text that no template wraps.

    It works on a copy of the tokenizer: whether control tokens are recognised is a mode of the original, which
    rendering switches, and a copy that never does needs no lock.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, vocab_size: int) -> None:
        self._tokenizer = _without_control_tokens(tokenizer)
        self._begin_id: int | None = tokenizer.bos_token_id
        self._longest_token = longest_token_bytes(tokenizer)
        self._vocab_size = vocab_size

    def encode(self, text: str, *, add_special_tokens: bool = False) -> tuple[int, ...]:
        """Return the token ids of a text; `add_special_tokens` puts around it what the tokenizer wants there."""
        # Of the library's calls only those for batches let other threads run meanwhile.
        return tuple(self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, control tokens written out.

        Raises:
            RequestError: an id is none of this model's.
        """
        self.check_ids(ids, param="tokens")
        return self._tokenizer.decode_batch([list(ids)], skip_special_tokens=False)[0]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the entries of the vocabulary, written as the vocabulary writes them."""
        return [self._tokenizer.id_to_token(token_id) or "" for token_id in ids]

    def at_least(self, *texts: str) -> int:
        """Return a number that their tokens cannot fall below, without tokenising: megabytes cost milliseconds."""
        if self._longest_token is None:
            return 0
        return sum(-(-len(text.encode()) // self._longest_token) for text in texts)

    def prompt(self, prompt: str | Sequence[int], *, context_length: int) -> tuple[int, ...]:
        """Return the ids of a prompt that a client wrote: as text, or as ids, which are taken as they are.

        An empty prompt is the model's first token, if it has one.

        Raises:
            ContextLengthError: it leaves no room for a reply.
            RequestError: an id is none of this model's, or there is nothing to begin with.
        """
        if isinstance(prompt, str):
            least = self.at_least(prompt)
            if least >= context_length:
                raise ContextLengthError(
                    context_length=context_length, prompt_tokens=least, is_lower_bound=True, param="prompt"
                )
            ids = self.encode(prompt, add_special_tokens=True)
        else:
            ids = tuple(prompt)
            self.check_ids(ids, param="prompt")
        if len(ids) >= context_length:
            raise ContextLengthError(context_length=context_length, prompt_tokens=len(ids), param="prompt")
        return ids or (self._beginning(),)

    def _beginning(self) -> int:
        if self._begin_id is None:
            raise RequestError(
                "Invalid 'prompt': it is empty, and this model has no token to begin a text with.",
                param="prompt",
                code="empty_string",
            )
        return self._begin_id

    def check_ids(self, ids: Sequence[int], *, param: str) -> None:
        """Refuse what is no token of this model.

        Raises:
            RequestError: naming the first such id and `param`.
        """
        for token_id in ids:
            if not 0 <= token_id < self._vocab_size:
                raise RequestError(
                    f"Invalid token id in '{param}': {token_id} is none of this model's {self._vocab_size} tokens.",
                    param=param,
                    code="invalid_value",
                )


def _without_control_tokens(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Copy the tokenizer into one for which the control tokens of the model and its template are mere text."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    template = str(tokenizer.chat_template)
    for token in content.get("added_tokens", ()):
        # White space is an added token of some vocabularies, and templates write it as ordinary text.
        token["special"] |= token["content"] in template and not token["content"].isspace()
    copy = Tokenizer.from_str(json.dumps(content))
    copy.encode_special_tokens = True
    copy.no_truncation()
    copy.no_padding()
    return copy

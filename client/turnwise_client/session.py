"""A chat in progress: the conversation, the settings in force and the server it is held with. It shows nothing."""

from __future__ import annotations

from dataclasses import replace

from turnwise_client import conversation as talk
from turnwise_client.conversation import Conversation
from turnwise_client.errors import ServerError, UsageError
from turnwise_client.http import ChatApi, ChatRequest
from turnwise_client.replies import Display, Outcome, stream_reply
from turnwise_client.sanitise import one_line
from turnwise_client.settings import Sampling
from turnwise_client.wire import ModelInfo


class ChatSession:
    """Holds the state that commands change and replies grow."""

    def __init__(
        self,
        api: ChatApi,
        *,
        model: str | None = None,
        system: str | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        self.api = api
        self.conversation = Conversation(system=system)
        self.sampling = sampling or Sampling()
        self._wanted_model = model
        self._models: tuple[ModelInfo, ...] = ()

    @property
    def model(self) -> str:
        """The model that answers; empty until the server has been asked what it has."""
        if self._wanted_model:
            return self._wanted_model
        return self._models[0].id if self._models else ""

    @property
    def context_length(self) -> int | None:
        """Tokens the model sees, when the server has told."""
        return next((info.context_length for info in self._models if info.id == self.model), None)

    @property
    def known_models(self) -> tuple[str, ...]:
        """Ids of the models the server listed when it was last asked."""
        return tuple(info.id for info in self._models)

    def refresh_models(self) -> tuple[ModelInfo, ...]:
        """Ask the server which models it has.

        Raises:
            ServerError: it cannot be asked.
        """
        self._models = self.api.models()
        return self._models

    def choose_model(self, model: str) -> None:
        """Let `model` answer from now on.

        Raises:
            UsageError: the server does not list it.
            ServerError: the server cannot be asked.
        """
        known = [info.id for info in self.refresh_models()]
        if model not in known:
            raise UsageError(
                f"the server has no model {one_line(model)!r}: it has {one_line(', '.join(known))}"
            )
        self._wanted_model = model

    def new_conversation(self) -> None:
        """Forget every turn; the system prompt stays."""
        self.conversation = Conversation(system=self.conversation.system)

    def set_system(self, system: str | None) -> None:
        """Change the system prompt, from the next request on."""
        self.conversation = replace(self.conversation, system=system)

    def ask(self, prompt: str) -> None:
        """Add the user's message; `reply` then answers it."""
        self.conversation = talk.ask(self.conversation, prompt)

    def request(self) -> ChatRequest:
        """Return the request that asks for an answer to the last turn.

        Raises:
            ServerError: no model was chosen, and the server cannot be asked what it has.
        """
        if not self.model:
            self.refresh_models()
        return ChatRequest(self.model, talk.to_messages(talk.unanswer(self.conversation)), self.sampling)

    def reply(self, display: Display) -> Outcome:
        """Have the last turn answered, anew if it was. What broke off is kept; without any text nothing changes."""
        try:
            request = self.request()
        except ServerError as error:
            return Outcome(None, error=error)
        except KeyboardInterrupt:
            return Outcome(None, was_interrupted=True)
        outcome = stream_reply(self.api, request, display)
        if outcome.reply is not None:
            self.conversation = talk.answer(self.conversation, outcome.reply)
        return outcome

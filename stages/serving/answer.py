"""Completion answers in OpenAI's shape, put together from the engine's events."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.inference.generation import Event
from stages.inference.sampling import TokenLogprobs
from stages.inference.text import TextStream, Vocabulary
from stages.serving.request import CompletionRequest


@dataclass
class Choice:
    """One choice of an answer, updated with each event."""

    index: int
    vocabulary: Vocabulary
    request: CompletionRequest
    prompt: tuple[int, ...]  # all tokens that the model reads
    prompt_text: str
    max_tokens: int
    implied: int = 0  # tokens at the start of `prompt` that are not part of the client's text: the document's start
    text: str = ""
    tokens: int = 0
    finish_reason: str | None = None
    logprobs: dict[str, list[Any]] | None = None
    _started: bool = False

    def take(self, event: Event) -> dict[str, Any]:
        """Add an event. Returns its contribution in the shape of a choice of a streamed chunk."""
        echoed = self.request.echo
        text = self.prompt_text + event.text if echoed and not self._started else event.text
        scores: dict[str, list[Any]] | None = None
        if self.request.logprobs is not None:
            scores = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
            if echoed and not self._started:
                self._add_prompt(scores, event.prompt_logprobs or ())
            if event.token is not None and event.logprobs is not None:
                start = len(self.prompt_text) if echoed else 0
                self._add(scores, event.token, event.logprobs, start + event.offset)
            self.logprobs = self.logprobs or {key: [] for key in scores}
            for key, values in scores.items():
                self.logprobs[key].extend(values)
        self._started = True
        self.tokens += event.token is not None
        self.text += text
        self.finish_reason = event.finish_reason
        return {"index": self.index, "text": text, "logprobs": scores, "finish_reason": event.finish_reason}

    def whole(self) -> dict[str, Any]:
        """The choice in the shape of an answer that is not streamed."""
        return {
            "index": self.index,
            "text": self.text,
            "logprobs": self.logprobs,
            "finish_reason": self.finish_reason,
        }

    def _add_prompt(self, scores: dict[str, list[Any]], logprobs: Sequence[TokenLogprobs]) -> None:
        stream = TextStream(self.vocabulary.table)
        for token, found in zip(self.prompt[self.implied :], logprobs[self.implied :], strict=True):
            self._add(scores, token, found, stream.decoded_characters)
            stream.push(token)

    def _add(self, scores: dict[str, list[Any]], token: int, found: TokenLogprobs, offset: int) -> None:
        name = self.vocabulary.name
        asked = bool(self.request.logprobs) and found.chosen is not None
        scores["tokens"].append(name(token))
        scores["token_logprobs"].append(found.chosen)
        # The token itself is always among the most likely ones that are listed.
        top = {**dict(found.top), token: found.chosen}
        scores["top_logprobs"].append({name(one): value for one, value in top.items()} if asked else None)
        scores["text_offset"].append(offset)


def envelope(model_name: str) -> dict[str, Any]:
    """The fields with which an answer, or every chunk of a streamed one, begins."""
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model_name,
    }


def usage(prompts: list[tuple[int, ...]], choices: list[Choice]) -> Mapping[str, int]:
    """Token counts of an answer. `prompts`: each prompt's tokens once, however many choices it has."""
    prompt_tokens = sum(len(prompt) for prompt in prompts)
    completion_tokens = sum(choice.tokens for choice in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }

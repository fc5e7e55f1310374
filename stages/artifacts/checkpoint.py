"""A trained model: dense or mixture-of-experts, in floating point or quantized.

    config.json          the DecoderConfig
    model.safetensors    every tensor, by its name in the decoder
    tokenizer.json       the tokenizer that the model was trained with, in the format of the `tokenizers` library
    facts.json           facts about how the model was made: tokens seen, losses, ...
    chat_template.jinja  the chat template of an imported model that has one
    training_state/      the state of the training that made it, if its step keeps that

Opening a checkpoint executes no code: it reads only JSON and safetensors, and checks every tensor against the config.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from stages.artifacts.tokenizer import TOKENIZER, Tokenizer, TokenizerForecast
from stages.base import Application, ArtifactError, Edge, ExampleRequest, Servable
from stages.json_files import read_json
from stages.model.config import DecoderConfig
from stages.model.parameters import active_parameter_count, parameter_count
from stages.predictor import Predictor

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer as LoadedTokenizer

    from stages.model.decoder import Decoder
    from stages.model.safetensors_files import TensorFiles

CONFIG, WEIGHTS, FACTS = "config.json", "model.safetensors", "facts.json"
TEMPLATE = "chat_template.jinja"
JSON_LIMIT_BYTES = 1 << 20


class CheckpointForecast(TokenizerForecast):
    """What is known of a checkpoint before its step has run: the config of its model, whose tokenizer it has, and the
    step of the training state that it keeps."""

    config: DecoderConfig
    state_step: int | None = None  # at the least; None: it keeps no training state


def known_config(model: object) -> DecoderConfig | None:
    """The config of a Checkpoint field, from the artifact or from the forecast of its step; None if it is not known."""
    if isinstance(model, Edge):
        return model.forecast.config if isinstance(model.forecast, CheckpointForecast) else None
    return model.config if isinstance(model, Checkpoint) else None


@dataclass(frozen=True)
class Checkpoint(Servable):
    """The weights of a decoder with its config, its tokenizer and facts about how it was made.

    Weights are stored in their original type: float32 after training, that of the source for an imported model.
    """

    predictor: ClassVar[Predictor | None] = Predictor(
        "stages.serving.predict:create",
        inputs={"prompt": "string"},
        outputs={"text": "string"},
        parameters={"max_tokens": 48, "temperature": 0.7},
        example={"prompt": "Once upon a time"},
    )

    @property
    def config(self) -> DecoderConfig:
        """Raises ArtifactError if config.json is missing or is not a decoder's."""
        return read_json(self.path / CONFIG, DecoderConfig, "a decoder's config", JSON_LIMIT_BYTES)

    @property
    def facts(self) -> Mapping[str, Any]:
        """How the model was made, as JSON values. Raises ArtifactError if facts.json is not a JSON object."""
        try:
            facts = json.loads(self._text(FACTS))
        except (ValueError, RecursionError):
            raise ArtifactError(f"{self.path / FACTS} is not JSON") from None
        if not isinstance(facts, dict):
            raise ArtifactError(f"{self.path / FACTS} does not hold a JSON object")
        return facts

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that turns a conversation into a text, if the model has one. It is not executed here."""
        return self._text(TEMPLATE) if (self.path / TEMPLATE).is_file() else None

    @property
    def tokenizer_path(self) -> Path:
        return self.path / TOKENIZER

    def tokenizer(self) -> LoadedTokenizer:
        """The tokenizer that the model was trained with."""
        return Tokenizer(self.path).load()

    def load(self, device: str = "cpu", dtype: torch.dtype | None = None) -> Decoder:
        """The model in evaluation mode.

        dtype: the type of the floating-point parameters; None for float32. Quantized weights and their scales keep
            their types.

        Raises ArtifactError if a tensor is missing, unknown, unreadable, not finite or of another shape than the config
        says.
        """
        import torch

        from stages.model.decoder import Decoder
        from stages.model.decoder_weights import converted

        config = self.config
        with torch.device("meta"):
            model = Decoder(config)
        model.load_state_dict(converted(self.state_dict(), config, dtype or torch.float32), strict=True, assign=True)
        return model.to(device=device).eval()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Every tensor by name. Raises ArtifactError if names, shapes or types do not fit the config, or if a value is
        not finite."""
        from stages.model.decoder_weights import read_weights

        return read_weights(self.path / WEIGHTS, self.config)

    def open_tensors(self) -> TensorFiles:
        """The same as `state_dict`, but each tensor is read when it is accessed. The result is a context manager that
        closes the file."""
        from stages.model.decoder_weights import open_weights

        return open_weights(self.path / WEIGHTS, self.config)

    def check(self) -> None:
        with self.open_tensors() as tensors:
            for name in tensors:
                _ = tensors[name]  # refused if it is not finite
        tokens = self.tokenizer().get_vocab(with_added_tokens=True)
        vocabulary, rows = max(tokens.values(), default=-1) + 1, self.config.vocab_size
        if vocabulary > rows:
            raise ArtifactError(f"{self.path}: the tokenizer has {vocabulary} tokens, the embedding only {rows} rows")
        _ = self.facts

    def application(self) -> Application:
        """OpenAI's completions API for this model, with the server's default limits."""
        return Application("bloomline", "stages.serving.http:create", {"model": str(self.path.absolute())})

    def examples(self) -> Sequence[ExampleRequest]:
        """A request for a completion."""
        return [ExampleRequest("POST", "/v1/completions", {"prompt": "def ", "max_tokens": 40})]

    def describe(self) -> Mapping[str, object]:
        config = self.config
        described: dict[str, object] = {"parameters": parameter_count(config)}
        if config.experts:
            described["active parameters"] = active_parameter_count(config)
            described["experts per layer"] = list(config.experts.per_layer)
        described |= {
            "layers": config.layers,
            "hidden size": config.hidden_size,
            "heads": config.heads,
            "context length": config.context_length,
            "vocabulary": config.vocab_size,
        }
        described["weights"] = config.quantization or self._stored_types()
        described["bytes"] = (self.path / WEIGHTS).stat().st_size
        return described | dict(self.facts)

    @classmethod
    def save(
        cls,
        path: Path,
        weights: torch.nn.Module | Mapping[str, torch.Tensor],
        config: DecoderConfig,
        tokenizer_json: Path,
        facts: Mapping[str, Any],
        chat_template: str | None = None,
    ) -> Checkpoint:
        """Write a checkpoint into the directory `path`, which is created if necessary.

        weights: a model or its state dict.

        Raises ArtifactError if the tensors do not fit the config.
        """
        import torch

        from stages.model.decoder_weights import write_weights

        state = weights.state_dict() if isinstance(weights, torch.nn.Module) else weights
        path.mkdir(parents=True, exist_ok=True)
        write_weights(path / WEIGHTS, state, config)
        return cls.complete(path, config, tokenizer_json, facts, chat_template)

    @classmethod
    def complete(
        cls,
        path: Path,
        config: DecoderConfig,
        tokenizer_json: Path,
        facts: Mapping[str, Any],
        chat_template: str | None = None,
    ) -> Checkpoint:
        """Write everything except the weights, which are in the directory `path` already."""
        (path / CONFIG).write_text(config.model_dump_json(indent=2) + "\n")
        (path / FACTS).write_text(json.dumps(dict(facts), indent=2, allow_nan=False) + "\n")
        shutil.copyfile(tokenizer_json, path / TOKENIZER)
        if chat_template is not None:
            (path / TEMPLATE).write_text(chat_template, encoding="utf-8")
        return cls(path)

    def _stored_types(self) -> str:
        with self.open_tensors() as tensors:
            found = {str(entry.dtype).removeprefix("torch.") for entry in tensors.headers.values()}
        return ", ".join(sorted(found))

    def _text(self, name: str) -> str:
        path = self.path / name
        try:
            if path.stat().st_size > JSON_LIMIT_BYTES:
                raise ArtifactError(f"{path} is larger than {JSON_LIMIT_BYTES} bytes: not a checkpoint's {name}")
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ArtifactError(f"{path} is not UTF-8 text") from None
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None

"""Serves an artifact once: checks its answers over HTTP, measures it, and writes what production needs.

What was measured is kept with the run: the deployment is the same wherever it is made.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self, cast

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stages.artifacts.checkpoint import Checkpoint, known_config
from stages.artifacts.corpus import Corpus, first_words
from stages.base import Artifact, Context, Demand, Edge, Resources, Runtime, Servable, Stage, StageError
from stages.serving.deployment import Deployment, LanguageModelServing, Serving, replica_bytes, type_name, write
from stages.serving.trial import Trial

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]

# The fields that only a Checkpoint has a use for.
LIMITS = ("max_running", "max_waiting", "prefill_chunk", "request_timeout_s")
LANGUAGE_MODEL_FIELDS = (*LIMITS, "prompt", "corpus", "max_tokens", "temperature")


class Deploy(Stage):
    """Serves an artifact on the cluster, sends it requests and measures the answers.

    A Checkpoint is asked for completions, any other Servable by its own example requests.
    """

    # 2: the artifact holds neither measurements nor the paths of the machine that made it
    # 3: it holds its own example request
    version: ClassVar[str] = "3"
    headline: ClassVar[str | None] = "time_to_first_token_ms"

    model: Servable  # a Checkpoint, or an artifact type of your own
    model_name: Name = "bloomline"  # the name by which clients address it
    registered_name: Name | None = None  # its name in the model registry; null: `model_name`
    alias: Name = "champion"  # the registry alias that will point to this version
    replicas: PositiveInt = 1  # processes that serve it
    cpus_per_replica: float = Field(default=1.0, gt=0)  # CPUs of one replica
    gpus_per_replica: float = Field(default=0.0, ge=0)  # GPUs of one replica
    trial_requests: Runtime[PositiveInt] = 16  # requests of each of the two measurements
    trial_concurrency: Runtime[PositiveInt] = 8  # clients at once in the second measurement

    max_running: PositiveInt = 8  # Checkpoint only: sequences in a replica's running batch
    max_waiting: NonNegativeInt = 64  # Checkpoint only: requests in a replica's queue, beyond which they get a 429
    prefill_chunk: PositiveInt = 256  # Checkpoint only: prompt tokens read between two steps of the running batch
    request_timeout_s: PositiveFloat = 600.0  # Checkpoint only: from the arrival of a request to the end of its answer
    prompt: str = Field(default="def ", min_length=1)  # Checkpoint only: prompt of the trial and of examples
    corpus: Corpus | None = None  # Checkpoint only: its held-out text gives the prompt, instead of `prompt`
    max_tokens: PositiveInt = 48  # Checkpoint only: length of the trial's completions
    temperature: float = Field(default=0.7, ge=0, le=100)  # Checkpoint only: of the trial's completions; 0: greedy

    @model_validator(mode="after")
    def _alias_is_free(self) -> Self:
        if self.alias == "latest" or (self.alias[0] in "vV" and self.alias[1:].isdecimal()):
            raise ValueError(f"alias: {self.alias!r} is reserved by the model registry; use 'champion', for example")
        return self

    def demand(self) -> Demand:
        # The step itself only sends requests: its replicas need the resources.
        self._refuse_fields_of_others()
        config, needed = known_config(self.model), 0
        if config is not None and not self.gpus_per_replica:  # with a GPU, the model is in the GPU's memory
            needed = replica_bytes(config, self.max_running, self.prefill_chunk)
        replica = Resources(cpus=self.cpus_per_replica, gpus=self.gpus_per_replica, memory_bytes=needed)
        return Demand(task=Resources(cpus=0), ranks=self.replicas, rank=replica, unit="replica")

    def run(self, ctx: Context) -> Deployment:
        from stages.serving.client import Client

        self._refuse_fields_of_others()
        prompt = self._prompt()
        trial = self._trial(prompt)
        deployment = write(ctx.out, self._serving(prompt), self.model)
        ctx.note(f"starting {self.replicas} replica{'s' if self.replicas > 1 else ''} of {self.model_name}")
        served = ctx.serve(deployment.application())
        try:
            client = Client(served.url)
            for title, text in trial.check(client).items():
                ctx.highlight(title, text)
            results = trial.measure(
                client,
                self.trial_requests,
                self.trial_concurrency,
                lambda done, total: ctx.progress(done, total, "requests"),
            )
        finally:
            served.stop()
        for note in results.notes:
            ctx.note(note)
        ctx.metrics(results.metrics)
        ctx.figure("latency", results.figure, measured=True)
        return deployment

    def _refuse_fields_of_others(self) -> None:
        """Raise StageError if the artifact is known not to be a Checkpoint and a Checkpoint's field is set."""
        model = cast("object", self.model)
        kind: type[Artifact] | None = model.produces if isinstance(model, Edge) else type(self.model)
        if kind is None or issubclass(kind, Checkpoint):
            return
        fields = type(self).model_fields
        if chosen := [name for name in LANGUAGE_MODEL_FIELDS if getattr(self, name) != fields[name].default]:
            raise StageError(f"{', '.join(chosen)}: only a Checkpoint has a use for this, not a {kind.__name__}")

    def _prompt(self) -> str:
        document = next(self.corpus.documents("validation"), None) if self.corpus else None
        return first_words(document.text) if document else self.prompt

    def _trial(self, prompt: str) -> Trial:
        from stages.serving.language_model import CompletionTrial
        from stages.serving.trial import ExampleTrial

        if isinstance(self.model, Checkpoint):
            return CompletionTrial(self.model_name, prompt, self.max_tokens, self.temperature)
        return ExampleTrial(self.model)

    def _serving(self, prompt: str) -> Serving:
        common = {
            "artifact": type_name(type(self.model)),
            "model_name": self.model_name,
            "registered_name": self.registered_name or self.model_name,
            "alias": self.alias,
            "replicas": self.replicas,
            "cpus": self.cpus_per_replica,
            "gpus": self.gpus_per_replica,
        }
        if not isinstance(self.model, Checkpoint):
            return Serving.model_validate(common)
        of_model = {name: getattr(self, name) for name in (*LIMITS, "max_tokens")}
        return LanguageModelServing.model_validate(common | of_model | {"prompt": prompt})

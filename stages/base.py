"""The contract of stages: their fields, their artifacts, and the context in which they run.

A stage is a frozen, typed config with one method, `run`. The type of a field determines its kind. An `Artifact`
subclass is an edge (in YAML: the name of the step that makes it). An `External` is content outside the store,
identified by its digest and never by its path. Everything else is a plain value. Plain values determine the result,
unless their type is wrapped in `Runtime`: those say how the work is done.

A stage uses nothing but its `Context`; a process of a gang uses its `Rank`. The engine (`pipelines/`) supplies both, on
Ray or in process, and nothing here depends on which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from stages.predictor import Predictor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The Content-Security-Policy of the pages that we write: no script runs in them, and no request leaves them.
PAGE_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

VERDICT = "verdict"  # the title of the highlight that leads the report of a run

Item = TypeVar("Item")
T = TypeVar("T")


class StageError(Exception):
    """A stage's refusal: what was wrong, where, what was expected and what to do. Shown without a traceback."""


class ArtifactError(StageError):
    """An artifact's files are not what its type promises."""


class Stopped(Exception):
    """The run was asked to stop, and the stage did so after saving what it had in `scratch`."""


# ---------------------------------------------------------------------------------------------------------------
# Field kinds


class RuntimeMarker:
    """Marks a field that says how a step runs. It does not affect the result and is not part of the fingerprint."""


Runtime = Annotated[T, RuntimeMarker()]


class Config(BaseModel):
    """Base of every config value: frozen, unknown fields refused, defaults validated."""

    version: ClassVar[str] = "1"  # part of the fingerprint: change it when a change of the code changes the result

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, arbitrary_types_allowed=True)


class External(Config):
    """Content outside the store that a stage reads. It is identified by what `digest` returns, not by its fields."""

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        """The digest of the content. `digest_file` hashes one file and caches the result by the file's stat.

        Raises StageError if the content is missing.
        """
        raise NotImplementedError


class Forecast(Config):
    """What is known of an artifact before its step has run. Each artifact type with a forecast has a subclass."""


@dataclass(frozen=True)
class Edge:
    """An artifact field before its step has run: the name of the step, and the type that the field expects.

    `forecast`: what is known of the artifact before that step has run (`Stage.forecast`).
    `produces`: the type of its artifact, a subclass of `expects`, once the whole pipeline has been read.
    """

    step: str
    expects: type[Artifact]
    forecast: Forecast | None = field(default=None, compare=False)
    produces: type[Artifact] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Artifact:
    """The result of a step: a typed, immutable directory. Subclasses open its files and check them."""

    path: Path
    is_model: ClassVar[bool] = False  # tracked as a model (MLflow LoggedModel), linked from step to step
    is_dataset: ClassVar[bool] = False  # tracked as an input dataset of the steps that read it

    def check(self) -> None:
        """Raise ArtifactError if the files are not those of the type. Called before the artifact is committed."""

    def describe(self) -> Mapping[str, object]:
        """A few facts for people: what `bloomline artifacts show` prints. JSON values."""
        return {}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: object) -> object:
            if isinstance(value, cls) or (isinstance(value, Edge) and issubclass(value.expects, cls)):
                return value
            if isinstance(value, str) and value:
                return Edge(value, cls)
            raise ValueError(f"expected the name of a step that makes a {cls.__name__}")

        return core_schema.no_info_plain_validator_function(validate)


# ---------------------------------------------------------------------------------------------------------------
# Resources


class Resources(Config):
    """What one process needs. The bytes are predictions that `plan` compares with the memory of the nodes and GPUs."""

    cpus: float = 1
    gpus: float = 0
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0  # of each of its GPUs
    custom: Mapping[str, float] = {}


class Demand(Config):
    """What a step needs from the cluster: its own process, and its gang if it has one (`ranks` processes).

    `fallback_sizes`: the smaller numbers of ranks that the step accepts if the cluster cannot place all of them, each
    with the resources that one rank then needs. `unit`: the word for one of those processes in messages.
    """

    task: Resources = Resources()
    ranks: int = 0
    rank: Resources = Resources()
    fallback_sizes: Mapping[int, Resources] = {}
    unit: str = "rank"


_NOTHING_SPECIAL = Demand()  # of most steps: made once


# ---------------------------------------------------------------------------------------------------------------
# The context


class Reporter(Protocol):
    """How running work reports to the terminal, the tracking and the report."""

    def progress(self, done: float, total: float, unit: str = "", /, **info: float | str) -> None:
        """Show progress: `done` of `total` `unit`s, with a few named values. Cheap, because messages are throttled."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record metrics; with `step`, as a point of a curve. The record keeps the last value of each name."""

    def note(self, message: str) -> None:
        """One line for the log."""

    def stopping(self) -> bool:
        """True once the run was asked to stop: save what is worth saving into `scratch` and raise `Stopped`."""


@dataclass(frozen=True)
class Rank:
    """One process of a gang: what the gang's function receives."""

    index: int
    size: int
    rendezvous: str  # address at which the ranks connect: "tcp://host:port", or "file://localhost/path" on one machine
    reporter: Reporter
    local_index: int = 0  # among the ranks on this node: the device to use
    uses_gpu: bool = False
    listener: int | None = None  # rank 0: a socket (file descriptor) bound to the rendezvous's port, to listen on


class Served(Protocol):
    """An application that answers HTTP."""

    url: str  # http://host:port, without a trailing slash

    def running(self) -> bool:
        """False once the server has ended."""

    def stop(self) -> None:
        """Accept no more requests, finish those in progress, and end."""

    def log(self) -> str:
        """Where the server's log is, and its end, for an error message."""


@dataclass(frozen=True)
class Application:
    """An ASGI application to serve: `factory` ("module:function") is called in the replica with `arguments`.

    The factory returns an ASGI 3 application, for example a FastAPI app. Each replica runs it in a separate process.
    """

    name: str
    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)  # JSON values only
    replicas: int = 1
    max_ongoing_requests: int = 64
    resources: Resources = Resources()
    drain_timeout_s: float = 30.0  # for the requests in flight when the server is stopped


@dataclass(frozen=True)
class ExampleRequest:
    """A request to a served application, and the answer that is expected."""

    method: str  # "GET", "POST", ...
    path: str  # below the application's root, for example "/predict"
    body: Any = None  # a JSON value; None: the request has no body
    status: int = 200
    check: Callable[[bytes], object] | None = None  # called with the answer's body; raises an exception if it is wrong


@dataclass(frozen=True)
class Servable(Artifact):
    """An artifact that can be served over HTTP from its directory. Tracked as a model unless a subclass differs."""

    is_model: ClassVar[bool] = True
    predictor: ClassVar[Predictor | None] = None  # None: it is only served

    def application(self) -> Application:
        """The application that serves this artifact. Its arguments name the artifact's files by absolute paths."""
        raise NotImplementedError

    def examples(self) -> Sequence[ExampleRequest]:
        """Requests with which the `deploy` stage checks and measures the application. `serve` suggests the first."""
        return ()


class Context(Reporter, Protocol):
    """What a running stage can use: directories, reports, and the cluster."""

    out: Path  # an empty directory; what the stage writes here becomes the artifact
    scratch: Path  # a durable directory for each fingerprint, in which a restarted step finds its saved progress
    step: str  # the step's name in the pipeline

    def figure(self, name: str, figure: Figure, *, measured: bool = False) -> None:
        """Keep a matplotlib figure: with the artifact (figures/NAME.png), in MLflow and in the report.

        `measured`: it shows times, memory or other values that differ from run to run. Such a figure is kept with the
        run and not with the artifact, whose files are the same wherever it is made.
        """

    def page(self, name: str, text: str) -> None:
        """Keep a text for people, NAME.html (which needs nothing else) or NAME.md: with the artifact (pages/), in
        MLflow and in the report. `name` has its ending."""

    def highlight(self, title: str, text: str) -> None:
        """A short text to show at the end of a run, for example a sample completion.

        With the title `VERDICT`, its first line says how good the result is and leads the report; every further line is
        a caution about it.
        """

    def gang(
        self,
        function: Callable[..., T],
        *arguments: Any,
        ranks: int,
        rank: Resources = Resources(),
        fallback_sizes: Mapping[int, Resources] = {},
        max_restarts: int = 0,
    ) -> list[T]:
        """Run `function(rank, *arguments)` in `ranks` processes at once and return their results in rank order.

        If the cluster cannot place all of them, at the start or after a loss, the gang gets the largest number of ranks
        in `fallback_sizes` that fits, each with the resources given there.

        A lost process ends the whole gang. All of it then starts again, at most `max_restarts` times, so `function`
        must resume from what it saved. An exception raised by `function` is not retried. In process (no cluster) the
        gang has one rank, whatever `ranks` is. Raises StageError if the gang could not be placed or was lost.
        """

    def map(
        self,
        function: Callable[[Item], T],
        items: Sequence[Item],
        *,
        workers: int = 0,
        resources: Resources = Resources(),
        max_retries: int = 3,
    ) -> Iterator[tuple[int, T]]:
        """Run `function(item)` for every item in a separate worker; yield (index of the item, result) as they finish.

        At most `workers` run at once (0: as many as the cluster can place, each with `resources`). With one worker, or
        in process (no cluster), the items are processed here, in order. The item of a lost worker is processed again,
        at most `max_retries` times, so `function` must tolerate its own partial results. An exception that it raises
        ends the whole call. Raises Stopped if the run was asked to stop, StageError if an item was lost too often.
        """

    def serve(self, application: Application) -> Served:
        """Serve an application on a free port of this machine until `stop()`. Returns once the application answers."""


# ---------------------------------------------------------------------------------------------------------------
# The stage


class Stage(Config):
    """A kind of work. Subclasses declare fields and `run`, whose return annotation is the artifact type of the step."""

    headline: ClassVar[str | None] = None  # the metric shown in the table of a run
    # Whether `run` may start other processes by ctx.gang, ctx.map (with other than one worker) or ctx.serve. A run on
    # one machine whose steps all say False starts in a fraction of a second, without Ray.
    spawns: ClassVar[bool] = True

    def demand(self) -> Demand:
        """What this step needs from the cluster. Pure and cheap: `plan` calls it. A step's `resources` override it."""
        return _NOTHING_SPECIAL

    def forecast(self) -> Forecast | None:
        """What is known of the artifact before the step has run, from the fields and the edges' forecasts, if anything.

        Pure and cheap. Raises StageError if it can already see a reason for which `run` would raise it.
        """
        return None

    def obstacle(self) -> str | None:
        """Why `run` would fail, as far as the content that it reads from outside the store tells; None if it does not.

        Quick: it reads small files. `plan` calls it for a step that would run, and blocks the step. Raises nothing.
        """
        return None

    def cheaper_settings(self) -> Iterable[Mapping[str, object]]:
        """Values of `Runtime` fields with which this step would need fewer resources, the smallest change first.

        For a blocked step, `plan` suggests the first of them that fits.
        """
        return ()

    def run(self, ctx: Context) -> Artifact:
        raise NotImplementedError

    def bind(self, artifacts: Mapping[str, Artifact]) -> Self:
        """This stage with the artifact of its step in place of every edge. `artifacts`: by step name."""
        return _bound(self, lambda edge: artifacts[edge.step])

    def with_forecasts(
        self, forecasts: Mapping[str, Forecast | None], produces: Mapping[str, type[Artifact]] = {}
    ) -> Self:
        """This stage with the forecast and the type of its artifact at every edge, both by step name."""
        return _bound(
            self, lambda edge: replace(edge, forecast=forecasts.get(edge.step), produces=produces.get(edge.step))
        )


_Model = TypeVar("_Model", bound=BaseModel)


def _bound(model: _Model, put: Callable[[Edge], Any]) -> _Model:
    return model.model_copy(update={name: _bind(getattr(model, name), put) for name in type(model).model_fields})


def _bind(value: Any, put: Callable[[Edge], Any]) -> Any:
    """A value in which `put(edge)` replaces every edge."""
    if isinstance(value, Edge):
        return put(value)
    if isinstance(value, BaseModel):
        return _bound(value, put)
    if isinstance(value, Mapping):
        return {key: _bind(item, put) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return type(value)(_bind(item, put) for item in value)  # type: ignore[call-arg]
    return value


def edges(stage: Stage) -> list[tuple[str, Edge]]:
    """Every edge of a stage with the dotted key of its field, in the order of the fields.

    Configs in the stage's fields can have edges too.
    """

    def walk(key: str, value: Any) -> list[tuple[str, Edge]]:
        if isinstance(value, Edge):
            return [(key, value)]
        if isinstance(value, Mapping):
            return [found for name, item in value.items() for found in walk(f"{key}.{name}", item)]
        if isinstance(value, BaseModel):
            return [found for name in type(value).model_fields for found in walk(f"{key}.{name}", getattr(value, name))]
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return [found for index, item in enumerate(value) for found in walk(f"{key}.{index}", item)]
        return []

    return [found for name in type(stage).model_fields for found in walk(name, getattr(stage, name))]

"""Sources in object stores: the same documents as from a disk, and one clear error for each fault."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.base import StageError, Stopped
from stages.corpus.ingest import IngestCorpus
from stages.corpus.readers.files import Files
from tests.stages.corpus.examples import digests, ingest, prose, write_lines
from tests.support import RecordingContext

s3fs = pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The endpoint of a local S3-compatible server."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    thread = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    thread.start()
    host, port = thread.get_host_and_port()
    yield f"http://{host}:{port}"
    thread.stop()


def configure(monkeypatch: pytest.MonkeyPatch, endpoint: str, key: str | None = "k") -> None:
    """The environment of a user of S3; `key`: None has no credentials."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    values = {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    values |= {
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_MAX_ATTEMPTS": "1",
    }
    values |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": "secret"} if key else {}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    configure(monkeypatch, server)
    name = f"b{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]}"
    s3fs.S3FileSystem().mkdir(name)
    yield name
    s3fs.S3FileSystem.clear_instance_cache()


def digest_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def web(folder: Path) -> Path:
    """Lines in one file that is large enough to be divided, in gzip and in zstd; and rows."""
    write_lines(folder / "a.jsonl", [{"text": prose(number)} for number in range(60)])
    write_lines(folder / "more" / "b.jsonl.gz", [{"text": prose(number)} for number in range(60, 70)])
    write_lines(folder / "more" / "c.jsonl.zst", [{"text": prose(number)} for number in range(70, 80)])
    table = pa.table({"text": [prose(number) for number in range(80, 120)]})
    pq.write_table(table, folder / "d.parquet", row_group_size=10)
    return folder


def from_(place: object) -> dict[str, Any]:
    return {"sources": {"web": {"reader": {"kind": "files", "paths": [f"{place}/**/*.*"]}}}, "shard_bytes": 8_000}


def test_files_in_a_bucket_make_the_same_corpus_as_files_on_a_disk(bucket: str, tmp_path: Path) -> None:
    here = web(tmp_path / "web")
    s3fs.S3FileSystem().put(str(here), f"{bucket}/web", recursive=True)
    corpus, _ = ingest(tmp_path / "far", **from_(f"s3://{bucket}/web"), draw=False)
    assert corpus.manifest.total.kept.documents == 120
    assert len(corpus.manifest.shards) >= 4
    ingest(tmp_path / "near", **from_(here), draw=False)
    assert digests(tmp_path / "far" / "out") == digests(tmp_path / "near" / "out")


def test_changed_content_has_another_digest_and_missing_content_is_reported(bucket: str, tmp_path: Path) -> None:
    files = s3fs.S3FileSystem()
    files.put(str(web(tmp_path / "web")), f"{bucket}/web", recursive=True)
    reader = Files(paths=(f"s3://{bucket}/web/*.jsonl",))
    before = reader.digest(digest_file)
    assert before == reader.digest(digest_file)
    # By somebody else: what this process listed before must not be believed.
    other = s3fs.S3FileSystem(skip_instance_cache=True)
    other.pipe(f"{bucket}/web/a.jsonl", b'{"text": "changed"}\n')
    assert reader.digest(digest_file) != before
    (part,) = reader.parts()
    other.rm(f"{bucket}/web/a.jsonl")
    files.invalidate_cache()
    with pytest.raises(StageError, match=rf"s3://{bucket}/web/a.jsonl cannot be read: it no longer exists"):
        list(reader.read(part, 1000))


def test_shards_of_a_bucket_that_were_read_are_not_read_again(bucket: str, tmp_path: Path) -> None:
    for number in range(3):
        lines = [{"text": prose(line)} for line in range(number * 20, number * 20 + 20)]
        write_lines(tmp_path / "web" / f"{number}.jsonl", lines)
    files = s3fs.S3FileSystem()
    files.put(str(tmp_path / "web"), f"{bucket}/web", recursive=True)

    class Interrupted(RecordingContext):
        def map(self, function: Any, items: Any, **options: Any) -> Iterator[tuple[int, Any]]:
            yield 0, function(items[0])
            raise Stopped

    stage = IngestCorpus(**(from_(f"s3://{bucket}/web") | {"shard_bytes": 10_000, "validation_fraction": 0.2}))
    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    with pytest.raises(Stopped):
        stage.run(Interrupted(tmp_path / "out", tmp_path / "scratch"))
    files.pipe(f"{bucket}/web/0.jsonl", b"x" * (tmp_path / "web" / "0.jsonl").stat().st_size)
    corpus = stage.run(RecordingContext(tmp_path / "out", tmp_path / "scratch", draw=False))
    assert corpus.manifest.total.kept.documents == 60


class Refusing(http.server.BaseHTTPRequestHandler):
    """A store that does not know the key."""

    def do_GET(self) -> None:
        body = b"<Error><Code>InvalidAccessKeyId</Code><Message>The key is not known.</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    do_HEAD = do_GET  # noqa: N815  # the names that http.server calls

    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


@pytest.fixture
def refusing() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as refuser:
        thread = threading.Thread(target=refuser.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{refuser.server_port}"
        refuser.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["*.jsonl", "a.jsonl"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("bucket", r"no file matches s3://no-such-bucket/\*|The specified bucket does not exist"),
        ("key", r"cannot be listed: (The key is not known|Forbidden)"),
        ("credentials", "cannot be listed: NoCredentialsError"),
        ("endpoint", "cannot be listed: EndpointConnectionError"),
    ],
)
def test_what_is_wrong_is_one_clear_error(
    server: str, refusing: str, monkeypatch: pytest.MonkeyPatch, wrong: str, message: str, name: str
) -> None:
    endpoint = {"key": refusing, "endpoint": "http://127.0.0.1:1"}.get(wrong, server)
    configure(monkeypatch, endpoint, None if wrong == "credentials" else "k")
    with pytest.raises(StageError, match=message):
        Files(paths=(f"s3://no-such-bucket/{name}",)).parts()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_that_fails_while_it_is_read_is_one_clear_error(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    s3fs.S3FileSystem().put(str(web(tmp_path / "web")), f"{bucket}/web", recursive=True)
    reader = Files(paths=(f"s3://{bucket}/web/**/*.*",))
    parts = reader.parts()
    assert len(parts) == 4

    def broken(*arguments: object) -> bytes:
        raise RuntimeError("the line went dead")

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", broken)
    for part in parts:
        with pytest.raises(StageError, match=r"s3://.*RuntimeError: the line went dead"):
            list(reader.read(part, 1000))

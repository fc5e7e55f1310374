"""The store's promises: done means done, damage is noticed and named, nothing half-written is ever found."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines import runs_command
from pipelines.doctor.store_check import check_store
from pipelines.errors import BloomlineError
from pipelines.graph import build
from pipelines.plan import Plan, make
from pipelines.store import FileEntry, Record, Store, StoreConfig
from pipelines.store.files import StoreError
from tests.durability import lost_in_a_power_cut
from tests.pipelines.demo import six_steps
from tests.pipelines.support import put, run, states

pytestmark = pytest.mark.usefixtures("demo_stages")


@pytest.fixture(params=["directory", "memory", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "directory":
        return Store(StoreConfig(root=str(tmp_path / "store")))
    if request.param == "memory":
        return Store(StoreConfig(root=f"memory://{tmp_path.name}", state_directory=str(tmp_path / "state")))
    store: Store = request.getfixturevalue("s3_store")
    return store


def test_the_doctor_finds_nothing_wrong_with_any_store_and_leaves_nothing_there(any_store: Store) -> None:
    found = list(check_store(any_store.config))
    assert [one.state for one in found] == ["ok"] * (1 if any_store.config.is_local else 2), found
    assert "write, read back, atomic create" in found[0].text
    assert not [name for name in any_store.files.names("") if name.startswith("doctor")]


def plan(store: Store, **fields: object) -> Plan:
    return make(build("demo", six_steps(**fields)), store, "abcdef")


def overwrite(store: Store, record: Record, name: str, content: bytes | None) -> None:
    """Change or remove a file of an artifact behind the store's back."""
    if store.config.is_local:
        path = store.config.local_root / record.location / name
        if content is None:
            path.unlink()
        else:
            path.chmod(0o644)
            path.write_bytes(content)
    elif content is None:
        store.files.remove(f"{record.location}/{name}")
    else:
        store.files.write(f"{record.location}/{name}", content)


def test_a_run_on_any_file_system(any_store: Store) -> None:
    first, _, _ = run(any_store, six_steps())
    assert first.state == "done"
    again = Store(any_store.config)
    second, _, _ = run(again, six_steps())
    assert states(second) == "a:cached b:cached c:cached d:cached e:cached f:cached"
    record = again.latest("demo", "e")
    assert record is not None
    assert (again.open(record) / "text.txt").read_text() == "a b"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "text.txt is missing"), (b"", "has 0 bytes instead of 1"), (b"?", "has other content")],
)
def test_damage_is_noticed_and_named_on_any_file_system(any_store: Store, content: bytes | None, said: str) -> None:
    record = put(any_store, plan(any_store), "a", "run", "a")
    assert any_store.inspect(record) == []
    assert any_store.inspect(record, thorough=True) == []
    time.sleep(1.1 if "s3" in any_store.config.root else 0.06)
    overwrite(any_store, record, "text.txt", content)
    fresh = Store(any_store.config)
    assert said in str(fresh.inspect(record)[0])
    with pytest.raises((BloomlineError, FileNotFoundError)):
        fresh.open(record)


def test_a_flipped_byte_with_the_old_time_put_back_is_noticed(store: Store) -> None:
    record = put(store, plan(store), "a", "run", "abcdefgh")
    path = store.config.local_root / record.location / "text.txt"
    before = path.stat()
    path.chmod(0o644)
    path.write_text("abcdefgH")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert "other content" in str(Store(store.config).inspect(record)[0])


def rot(store: Store, record: Record, name: str) -> None:
    """Change a byte and nothing of what the memory of digests knows of the file, as an error of the disk does."""
    key = store.files.key(f"{record.location}/{name}")
    content = store.files.read(f"{record.location}/{name}")
    assert content
    time.sleep(1.1 if "s3" in store.config.root else 0.06)
    overwrite(store, record, name, bytes([content[0] ^ 1]) + content[1:])
    token = store.files.tokens(record.location)[name][1]
    memory = Store(store.config).digests
    memory.remember([(key, token, memory.known()[key][1])])


def test_damage_behind_an_unchanged_stat_is_repaired_once_it_was_found(any_store: Store) -> None:
    steps = {"a": {"stage": "make", "text": "a"}, "b": {"stage": "join", "texts": ["a"]}}
    run(any_store, steps)
    for finds in ("verify", "read"):
        record = any_store.latest("demo", "a")
        assert record is not None
        rot(any_store, record, "text.txt")
        assert states(run(Store(any_store.config), steps)[0]) == "a:cached b:cached"  # nobody has read the file
        if finds == "verify":
            assert Store(any_store.config).inspect(record, thorough=True)
        else:
            failed, _, _ = run(Store(any_store.config), steps, force=["b"])
            assert states(failed) == "a:cached b:failed"
        planned = make(build("demo", steps), Store(any_store.config), "ab").steps["a"]
        assert (planned.state, "other content" in planned.reason) == ("run", True)
        assert states(run(Store(any_store.config), steps)[0])[:6] == "a:done"
        healed = Store(any_store.config).latest("demo", "a")
        assert healed is not None
        assert Store(any_store.config).inspect(healed, thorough=True) == []


def test_a_file_that_was_only_touched_is_whole(store: Store) -> None:
    record = put(store, plan(store), "a", "run", "a")
    (store.config.local_root / record.location / "text.txt").touch()
    assert Store(store.config).inspect(record) == []


def test_a_file_that_does_not_belong_there_is_named(store: Store) -> None:
    record = put(store, plan(store), "a", "run", "a")
    (store.config.local_root / record.location / "more.txt").write_text("x")
    assert [str(damage) for damage in store.inspect(record)] == ["more.txt does not belong there"]


def test_planning_reads_no_file_that_was_not_touched(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run(store, six_steps())
    from pipelines.store import digests
    from pipelines.store import store as module

    def read(path: Path) -> str:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(module, "sha256_of", read)
    monkeypatch.setattr(digests, "sha256_of", read)
    assert plan(Store(store.config)).to_run == []


def test_a_damaged_memory_of_digests_costs_time_only(store: Store) -> None:
    run(store, six_steps())
    (store.config.state / "digests.sqlite").write_bytes(b"garbage" * 100)
    assert plan(Store(store.config)).to_run == []
    (store.config.state / "digests.sqlite").write_bytes(b"garbage" * 100)  # after this store has read it
    store.remove(next(store.records()))
    assert len(list(store.records())) == 5


def test_a_memory_of_digests_that_another_process_is_making_stays(store: Store) -> None:
    memory = store.config.state / "digests.sqlite"
    memory.parent.mkdir(parents=True)
    memory.touch()  # as sqlite makes it: empty, its table is yet to come
    assert store.digests.known() == {}
    assert memory.exists()


@given(st.text(min_size=1))
def test_no_path_leads_out_of_the_artifact(path: str) -> None:
    try:
        entry = FileEntry(path=path, size=0, sha256="0" * 64)
    except ValidationError:
        return
    base = Path("/store/artifacts/x")
    assert base in Path(os.path.normpath(base / entry.path)).parents


def test_an_artifact_holds_regular_files_only(store: Store) -> None:
    staged = store.stage("f" * 64)
    (staged / "link").symlink_to("/etc/passwd")
    with pytest.raises(BloomlineError, match="link is not a regular file"):
        store.list_files(staged)


def test_killed_at_any_moment_there_is_a_whole_artifact_or_none(tmp_path: Path) -> None:
    """A process that commits without pause is killed at random moments; what is found is always whole."""
    code = (
        "import sys, random; from tests.pipelines import demo; import stages.registry;"
        "stages.registry.STAGES = demo.STAGES\n"
        "from tests.pipelines.support import put; from pipelines.store import Store, StoreConfig\n"
        "from pipelines.graph import build; from pipelines.plan import make\n"
        f"store = Store(StoreConfig(root={str(tmp_path / 'store')!r})); print('ready', flush=True)\n"
        "for i in range(10**6):\n"
        "    plan = make(build('demo', demo.six_steps(a__text=f'{i % 20}')), store, 'abcdef')\n"
        "    put(store, plan, 'a', 'run', str(i % 20) * 20000)\n"
    )
    chance = random.Random(7)
    root = Path(__file__).parents[3]
    whole = 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = Store(StoreConfig(root=str(tmp_path / "store")))
        for record in store.records():
            assert store.inspect(record, thorough=True) == []
            store.open(record)
            whole += 1
        names = os.listdir(tmp_path / "store" / "records") if (tmp_path / "store" / "records").exists() else []
        assert len([name for name in names if not name.startswith(".")]) == len(list(store.records()))
    assert whole > 0


def test_a_power_cut_takes_nothing_that_was_recorded(store: Store) -> None:
    with lost_in_a_power_cut(store.config.local_root) as lost:
        record = put(store, plan(store), "a", "run", "a")
        store.set_latest("demo", "a", record.fingerprint)
    assert lost == []


def test_places_are_there_with_or_without_a_record(any_store: Store) -> None:
    record = put(any_store, plan(any_store), "a", "run", "a")
    any_store.files.remove(f"records/{record.fingerprint}.json")
    assert any_store.places() == [record.location]
    any_store.remove_files(record.location)
    assert any_store.places() == []


def test_remove(any_store: Store) -> None:
    record = put(any_store, plan(any_store), "a", "run", "a")
    any_store.remove(record)
    assert any_store.record(record.fingerprint) is None
    assert any_store.files.tokens(record.location) == {}


def test_a_bucket_that_does_not_exist_is_refused_before_a_run(s3: str, tmp_path: Path) -> None:
    options = {"endpoint_url": s3, "key": "k", "secret": "s"}
    config = StoreConfig(root="s3://nowhere/root", options=options, state_directory=str(tmp_path / "state"))
    with pytest.raises(StoreError, match="there is no bucket 'nowhere'"):
        Store(config).expect_writable()
    with pytest.raises(StoreError, match="there is no bucket 'nowhere'"):  # and not said to have no runs
        runs_command.show_list(Store(config), [], {})


@pytest.mark.parametrize("name", ["a\nb.txt", "a\\b.txt", "caf\udce9.txt"])
def test_a_name_that_no_record_holds_is_refused_by_name(store: Store, name: str) -> None:
    staged = store.stage("f" * 64)
    (staged / name).write_text("x")
    with pytest.raises(BloomlineError) as caught:
        store.list_files(staged)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_store_whose_name_is_not_utf8_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "caf\udce9").mkdir()
    monkeypatch.chdir(tmp_path / "caf\udce9")
    with pytest.raises(StoreError, match="has a name that is not UTF-8"):
        Store(StoreConfig(root="store")).expect_writable()

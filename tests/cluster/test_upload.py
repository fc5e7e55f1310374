"""What `submit` sends of a user's directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.base import ClusterError
from cluster.upload import LEFT_OUT, Upload, choose

SENT = ("conf/pipeline/books.yaml", "my_package/__init__.py", "pyproject.toml", "text/data/poems.txt", "keyboard.txt")
SECRETS = (
    *(".env", ".env.production", "deploy/.env", "keys/server.pem", "tls.key", "id_rsa", "id_rsa.pub", "ssh/id_ed25519"),
    *(
        ".netrc",
        ".pypirc",
        ".aws/credentials",
        ".ssh/config",
        "credentials.json",
        "gcp/service-account-7.json",
        "tls/SERVER.PEM",
    ),
)
OTHERS = (
    *(".git/config", ".venv/bin/python", "venv/bin/python", "data/corpus.txt", "outputs/run.txt", "multirun/x/y"),
    *("mlruns/0/meta.yaml", ".bloomline/mlflow.db", "my_package/__pycache__/x.pyc", ".mypy_cache/x", ".hypothesis/x"),
)


def write(directory: Path, *names: str, text: str = "text") -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def travelled(upload: Upload, target: Path) -> set[str]:
    upload.copy(target)
    return {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}


def test_secrets_stores_and_caches_do_not_travel(tmp_path: Path) -> None:
    project = tmp_path / "project"
    write(project, *SENT, *SECRETS, *OTHERS)
    upload = choose(project)
    assert travelled(upload, tmp_path / "copy") == set(SENT)
    for name in SECRETS:
        parts = [name, *(f"{parent}/" for parent in Path(name).parents)]
        assert any(upload.left_out.get(part) == "secrets" for part in parts), name
    assert set(upload.left_out.values()) == set(LEFT_OUT)


def test_one_line_says_what_is_left_out_and_how_to_send_it(tmp_path: Path) -> None:
    write(tmp_path, "a.py", ".env", ".git/HEAD")
    line = choose(tmp_path).line()
    assert "1 file (4 bytes)" in line
    assert "Left out: .env (secrets), .git/ (version control)." in line
    assert line.endswith("'cluster.include=[.env]'")
    assert "\n" not in line
    for number in range(40):
        write(tmp_path, f"{number:02}.pem")
    assert choose(tmp_path).line().count("(secrets)") < 40
    assert "and 30 more" in choose(tmp_path).line()


def test_what_is_included_by_name_travels(tmp_path: Path) -> None:
    project = tmp_path / "project"
    write(project, "a.py", ".env", "b.key", "data/one.txt", "data/.env", "built/x")
    write(project, ".gitignore", text="/built\n")
    upload = choose(project, include=[".env", "/data", "built/"])
    expected = {"a.py", ".env", "data/one.txt", "data/.env", "built/x", ".gitignore"}
    assert travelled(upload, tmp_path / "copy") == expected
    assert upload.left_out == {"b.key": "secrets"}


def test_ignore_files_are_respected_the_nearest_first(tmp_path: Path) -> None:
    write(tmp_path, "a.log", "kept.txt", "sub/b.log", "sub/c.log", "sub/deep/d.txt", "big/x", "sub/big/x")
    write(tmp_path, ".gitignore", text="*.log\n/big/\n")
    write(tmp_path / "sub", ".gitignore", text="!b.log\n")
    write(tmp_path / "sub", ".rayignore", text="deep\n")
    assert set(choose(tmp_path).files) == {".gitignore", "kept.txt", "sub/.gitignore", "sub/b.log", "sub/big/x"}


def test_a_store_and_an_environment_are_recognised_whatever_their_names(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "results/artifacts/x", "python/pyvenv.cfg", "python/lib/x.py")
    upload = choose(tmp_path, stores=[tmp_path / "results", tmp_path.parent])
    assert set(upload.files) == {"a.py"}
    assert upload.left_out == {"python/": "environments", "results/": "store"}


def test_links_out_of_the_directory_do_not_travel_unless_included(tmp_path: Path) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside"
    write(outside, "private", "folder/x")
    write(project, "a.py")
    for name, target in {"out": outside / "private", "folder": outside / "folder", "within": project / "a.py"}.items():
        (project / name).symlink_to(target)
    (project / "loop").symlink_to(project)
    upload = choose(project)
    assert set(upload.files) == {"a.py", "within"}
    assert upload.left_out == {"folder/": "link", "loop/": "link", "out": "link"}
    assert set(choose(project, include=["folder"]).files) == {"a.py", "within", "folder/x"}


def test_a_large_tree_is_refused_with_its_largest_files(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path, f"file{number}", text="x" * 1000 * (number + 1))
    upload = choose(tmp_path)
    upload.expect_at_most(36_000)
    with pytest.raises(ClusterError, match="upload_limit_bytes") as refused:
        upload.expect_at_most(35_999)
    assert "file7 (7.8 KiB), file6" in str(refused.value)
    assert "file2" not in str(refused.value)

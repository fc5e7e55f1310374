"""The reader of installed packages, on a made-up environment and on this one."""

from __future__ import annotations

import base64
import hashlib
import sysconfig
from pathlib import Path

import pytest

from stages.base import StageError
from stages.corpus.readers.installed import Installed
from stages.corpus.readers.reader import Candidate


def install(site: Path, name: str, files: dict[str, str], metadata: str = "", **extra: str) -> Path:
    """Files of a distribution below `site`, with METADATA and RECORD as an installer writes them."""
    folder = f"{name}-1.0.dist-info"
    content = {f"{folder}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{metadata}", **files}
    lines = []
    for path, text in content.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text.encode())}")
    (site / folder / "RECORD").write_text("\n".join([*lines, f"{folder}/RECORD,,", "../../bin/x,sha256=AA,1", ""]))
    for file, text in extra.items():
        (site / folder / file).write_text(text)
    return site / folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with only what the test installs, and a standard library of one module."""
    folders = {name: tmp_path / name for name in ("purelib", "stdlib", "include")}
    for folder in folders.values():
        folder.mkdir()
    (folders["stdlib"] / "site-packages").mkdir()
    (folders["stdlib"] / "site-packages" / "other.py").write_text("not of the standard library")
    (folders["stdlib"] / "os.py").write_text("import sys")
    (folders["include"] / "Python.h").write_text("#include")
    paths = {**folders, "platlib": folders["purelib"]}
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(paths[name]))
    return folders["purelib"]


def read(source: Installed, max_bytes: int = 1000) -> list[Candidate]:
    return [candidate for part in source.parts() for candidate in source.read(part, max_bytes)]


def digest_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def no_digest_file(path: Path) -> str:
    raise AssertionError(f"planning reads {path} whole")


def test_reads_sources_headers_docs_and_readmes_with_their_licences(site: Path) -> None:
    readme = "License-Expression: MIT\nDescription-Content-Type: text/markdown\n\n# Read me\n"
    install(site, "A_b", {"a/x.py": "x = 1", "a/h.h": "int x;", "a/notes.rst": "notes", "a/b.so": "binary"}, readme)
    classifiers = "License: " + "long " * 40 + "\nClassifier: License :: OSI Approved :: BSD License\n"
    install(site, "other", {"o.py": "o = 1", "other-1.0.dist-info/licenses/LICENSE.txt": "terms"}, classifiers)
    found = {c.path: c for c in read(Installed(packages=["python", "*"]))}
    assert {path: (c.package, c.license, c.language) for path, c in found.items()} == {
        "a/x.py": ("a-b", "MIT", "python"),
        "a/h.h": ("a-b", "MIT", "c"),
        "a/notes.rst": ("a-b", "MIT", "restructuredtext"),
        "A_b-1.0.dist-info/METADATA": ("a-b", "MIT", "markdown"),
        "o.py": ("other", "BSD License", "python"),
        "os.py": ("python", "PSF-2.0", "python"),
        "include/Python.h": ("python", "PSF-2.0", "c"),
    }
    assert found["a/x.py"].data == b"x = 1"
    assert found["A_b-1.0.dist-info/METADATA"].data.strip() == b"# Read me"


def test_patterns_choose_and_leave_out(site: Path) -> None:
    for name in ("ray-core", "ray_extra", "numpy"):
        install(site, name, {f"{name}/m.py": name, f"{name}/tests/t.py": name})
    source = Installed(packages=["Ray*"], exclude=["*/tests/*"], readme=False)
    assert [c.path for c in read(source)] == ["ray-core/m.py", "ray_extra/m.py"]


def test_leaves_out_itself_and_editable_installs(site: Path) -> None:
    install(site, "bloomline", {"pipelines/x.py": "x"})
    install(
        site, "mine", {"mine.py": "m"}, **{"direct_url.json": '{"url": "file:///x", "dir_info": {"editable": true}}'}
    )
    install(site, "kept", {"kept.py": "k"}, **{"direct_url.json": "{garbage"})
    assert [c.path for c in read(Installed(packages=["*"]))] == ["kept.py"]


def test_a_file_changed_after_it_was_installed_is_dropped(site: Path) -> None:
    install(site, "p", {"p.py": "as recorded", "q.py": "gone", "r.py": "r" * 2000})
    (site / "p.py").write_text("edited since")
    (site / "q.py").unlink()
    refused = {c.path: (c.refused and c.refused.rule, c.size) for c in read(Installed(packages=["p"]))}
    assert refused == {"p.py": ("altered", 12), "q.py": ("unreadable", 4), "r.py": ("too_long", 2000)}


def test_damaged_records_of_a_distribution_leave_its_files_out(site: Path) -> None:
    folder = install(site, "p", {"p.py": "kept", "q.py": "no digest"})
    record = (folder / "RECORD").read_text().splitlines()
    lines = [line if not line.startswith("q.py") else "q.py,sha256=AAAAA,9" for line in record]
    (folder / "RECORD").write_text("\n".join([*lines, "r.py,md5=AA,3", '"garbage', ""]))
    (folder / "METADATA").unlink()
    install(site, "bare", {"b.py": "no RECORD"}).joinpath("RECORD").unlink()
    found = read(Installed(packages=["*"], readme=False))
    assert [(c.path, c.license) for c in found] == [("p.py", "unknown")]


def test_identity_is_what_is_read_and_nothing_else(site: Path) -> None:
    folder = install(site, "p", {"p.py": "one", "p.so": "binary"})
    source = Installed(packages=["p"])
    before = source.digest(no_digest_file)
    install(site, "another", {"a.py": "not asked for"})
    with (folder / "RECORD").open("a") as record:
        record.write("p/__pycache__/p.cpython-311.pyc,,\n../../../bin/p,sha256=of-a-path,10\n")
    assert source.digest(no_digest_file) == before
    assert Installed(packages=["p"], suffixes=[".py"]).digest(no_digest_file) != before
    assert Installed(packages=["p", "python"]).digest(digest_file) != before
    install(site, "p", {"p.py": "two", "p.so": "binary"})
    assert source.digest(no_digest_file) != before


def test_an_edited_standard_library_is_noticed(site: Path) -> None:
    module = site.parent / "stdlib" / "os.py"
    source = Installed(packages=["python"])
    before = source.digest(digest_file)
    text = module.read_text()
    module.write_text(text + "\n# edited")
    assert source.digest(digest_file) != before
    module.write_text(text)
    assert source.digest(digest_file) == before


def test_a_package_that_is_not_installed_is_named(site: Path) -> None:
    install(site, "there", {"t.py": "t"})
    with pytest.raises(StageError, match="no installed package matches 'absent'"):
        Installed(packages=["there", "absent"]).digest(no_digest_file)
    with pytest.raises(StageError, match=r"have no file with a suffix of \.rst"):
        Installed(packages=["there"], suffixes=[".rst"], readme=False).parts()


def test_this_environment_holds_pydantic_under_its_licence() -> None:
    found = read(Installed(packages=["pydantic"], suffixes=[".py"]), max_bytes=1_000_000)
    assert len(found) > 50
    assert {candidate.license for candidate in found} == {"MIT"}
    assert not [candidate.path for candidate in found if candidate.refused]
    assert not any(Path(candidate.path).is_absolute() for candidate in found)

"""Nothing that bloomline reads is unpickled or evaluated, and no model brings code."""

from __future__ import annotations

import ast

import pytest

from tests.project.support import ROOT

FORBIDDEN = {
    *("eval", "exec", "compile", "os.system", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "dill.load"),
    *("marshal.loads", "shelve.open", "joblib.load"),
}
ARGUMENTS = {"trust_remote_code", "allow_pickle", "shell"}  # with any value but False
FOLDERS = ("pipelines", "cluster", "stages")
SOURCES = [ROOT / "bloomline.py", *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]


def dangerous(tree: ast.Module) -> list[str]:
    """The calls that are forbidden, with their lines."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            arguments = {each.arg or "" for each in node.keywords if not _is_false(each.value)}
            if bad := ({name} & FORBIDDEN) | (arguments & ARGUMENTS):
                found.append(f"{node.lineno}: {', '.join(sorted(bad))}")
    return found


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def test_no_source_evaluates_or_unpickles() -> None:
    found = {path: dangerous(ast.parse(path.read_text())) for path in SOURCES}
    assert {str(path.relative_to(ROOT)): calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize("code", ["eval(x)", "torch.load(x)", "f(trust_remote_code=True)", "run(x, shell=flag)"])
def test_what_is_forbidden_is_found(code: str) -> None:
    assert dangerous(ast.parse(code))

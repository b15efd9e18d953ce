"""The layers of the project: each module imports only from layers below its own, or from its own package."""
import ast
from pathlib import Path

import pytest
from commands import ROOT

LAYERS = {"util": 1, "dataset": 2, "model": 2, "inference_core": 3, "train": 3, "download_model": 3,
          "download_datasets": 3, "download_bl30k": 3, "inference": 4, "propagate": 5, "eval_davis": 5,
          "eval_davis_2016": 5, "eval_youtube": 5, "try_correspondence": 5, "scripts": 5,
          "annotation": 5, "annotate": 6, "hubconf": 5}
MODULES = sorted(path.relative_to(ROOT) for path in
                 (*ROOT.glob("*.py"), *(path for name in LAYERS for path in (ROOT / name).glob("*.py"))))


def top_level(module: str) -> str:
    return module.split(".")[0]


def imports_of(path: Path) -> set[str]:
    """All modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if top_level(name) in LAYERS}


def name_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down(path):
    own = top_level(name_of(path))
    assert own in LAYERS, f"{path} belongs to no layer"
    wrong = [name for name in imports_of(path) if top_level(name) != own and LAYERS[top_level(name)] >= LAYERS[own]]
    assert not wrong, f"{path} imports {wrong}"


def test_there_is_no_import_circle():
    modules = {name_of(path) for path in MODULES}
    left = {name_of(path): imports_of(path) & modules - {name_of(path)} for path in MODULES}
    while ready := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in ready:
            del left[name]
    assert not left, f"circle among {sorted(left)}"

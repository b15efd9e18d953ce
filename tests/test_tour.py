"""The notebook examples/tour.ipynb runs from top to bottom, and is stored with its outputs."""
import json
import sys

import pytest
from commands import ROOT

PATH = ROOT / "examples/tour.ipynb"


@pytest.fixture
def cells(monkeypatch):
    """The code cells, to be run in a folder; matplotlib opens no window."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.setattr(sys, "path", list(sys.path))
    with matplotlib.rc_context():
        yield [cell for cell in json.loads(PATH.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("folder", ["examples", "."])
def test_the_project_is_found_from_both_folders(cells, folder, monkeypatch):
    monkeypatch.chdir(ROOT / folder)
    exec("".join(cells[0]["source"]), {})
    assert sys.path[0] == str(ROOT)


@pytest.mark.slow
def test_cells_run_in_order_and_show_what_is_stored(cells, monkeypatch, capsys):
    from matplotlib import pyplot
    monkeypatch.chdir(ROOT)
    shown, names = [], {}
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.gcf()) or pyplot.close())
    for number, cell in enumerate(cells, 1):
        exec("".join(cell["source"]), names)
        stored = [kind for output in cell["outputs"] for kind in output.get("data", {})]
        assert stored.count("image/png") == len(shown)
        assert bool(capsys.readouterr().out) == any(output.get("name") == "stdout" for output in cell["outputs"])
        assert cell["execution_count"] == number
        shown.clear()
    assert names["mean_j"](names["predictions"]).mean() > 0.85


def test_the_notebook_is_small_and_has_no_paths_of_a_machine():
    text = PATH.read_text()
    assert len(text) < 600_000
    assert not any(word in text for word in ("/tmp/", "/home/", "/Users/", "/root/", str(ROOT)))

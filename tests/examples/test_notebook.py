"""The notebook that a researcher opens first runs from top to bottom."""

import nbformat
import pytest

from tests.conftest import REPOSITORY

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install nbclient ipykernel")
NOTEBOOK = REPOSITORY / "examples" / "first_steps.ipynb"


@pytest.fixture(scope="module")
def notebook():
    """The notebook after its cells have run."""
    found = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(found, timeout=300, resources={"metadata": {"path": str(REPOSITORY)}}).execute()
    return found


def test_it_shows_scores_explanation_comparison_and_calibration(notebook):
    shown = "".join(str(output) for cell in notebook.cells for output in cell.get("outputs", ()))
    for text in ("quality_percentile", "aigcvqa-card", "image/png", "told apart", "SROCC", "quality_mos"):
        assert text in shown


def test_it_is_stored_without_outputs():
    assert not any(cell.get("outputs") for cell in nbformat.read(NOTEBOOK, as_version=4).cells)

"""The notebook of the docs runs from top to bottom on the testbed."""

from pathlib import Path

import nbformat
import pytest

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


@pytest.mark.slow
def test_the_tour_runs_from_top_to_bottom_and_repairs_the_testbed(tmp_path, testbed_model):
    from nbclient import NotebookClient

    (tmp_path / "testbed").symlink_to(testbed_model)
    notebook = nbformat.read(TOUR, as_version=4)
    NotebookClient(notebook, timeout=800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(str(output) for cell in notebook.cells for output in cell.get("outputs", []))
    assert said.count("Safety gate passed") == 2
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "report.html").stat().st_size > 100_000


def test_the_stored_tour_shows_what_came_out_and_no_error():
    notebook = nbformat.read(TOUR, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert "error" not in kinds
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)

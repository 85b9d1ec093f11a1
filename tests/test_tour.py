"""The notebook of the docs, run from top to bottom on the testbed, and what is stored in it."""

import json

import nbformat
import pytest
import torch

import actor_tune as at
from tools.make_tour import TOUR, run_tour


@pytest.mark.slow
@pytest.mark.timeout(2000)  # the notebook's own limit is shorter, and names the cell
@pytest.mark.filterwarnings("default")  # other people's code
def test_the_tour_runs_from_top_to_bottom_and_repairs_the_testbed(tmp_path, testbed_model):
    """With thresholds well inside what it shows."""
    run_tour(tmp_path, testbed_model)
    (folder,) = (tmp_path / "runs").glob("tour-*")
    assert json.loads((folder / "run" / "run.json").read_text())["gate"]["passed"]
    after = json.loads((folder / "after" / "results.json").read_text())
    before = after["baseline"]
    assert before["compliance_rate"] < 0.4, "it is an over-refuser"
    assert before["safety_score"] > 0.8
    assert before["harmless_refusal_rate"] < 0.25
    assert after["compliance_rate"] > before["compliance_rate"] + 0.15
    assert after["safety_score"] > before["safety_score"] - 0.08
    assert 0 < after["kl_harmless"] < 0.15
    model, saved = at.load(str(testbed_model)), at.load(str(folder / "run" / "model")).model.state_dict()
    with at.Patch.load(folder / "run" / "patch.safetensors").applied(model):
        assert all(torch.equal(tensor, saved[name]) for name, tensor in model.model.state_dict().items())
    assert (folder / "report.html").stat().st_size > 100_000


def test_the_stored_tour_shows_what_came_out_of_each_cell_and_no_error():
    code = [cell for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "execute_result"}
    assert not [output for output in outputs if output.get("name") == "stderr"]
    printed = "".join(output.get("text", output.get("data", {}).get("text/plain", "")) for output in outputs)
    assert "Safety gate passed" in printed
    assert "(True, " in printed
    assert any("image/png" in output.get("data", {}) for output in outputs)

"""What is exported of a fit of the real testbed says what the trained model says."""

import shutil

import pytest

from actor_tune.exports.export import export
from actor_tune.records.export import Export
from actor_tune.records.file import read
from test_cli import run as actor


def fitted(tmp_path, testbed_model):
    """The folder of a small fit."""
    arguments = ("--rule", "boundary", "--layer", 21, "--gate-prompts", 80, "--max-safety-drop", 0.2, "--allow-unsafe")
    assert actor("fit", testbed_model, *arguments, "--output-dir", tmp_path / "run") == 0
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_adapter_and_the_patched_base_have_the_verdicts_of_the_merged_model(tmp_path, testbed_model):
    run = fitted(tmp_path, testbed_model)
    found = export(run, "peft", tmp_path / "adapter", limit=60, allow_unsafe=True)
    assert (found.checked.n, found.checked.verdicts) == (60, 0), found.checked.differing
    assert found.low_rank.error <= found.low_rank.bound == 0.2
    assert found.low_rank.rank <= 512
    assert read(Export, tmp_path / "adapter") == found
    shutil.rmtree(run / "model")  # made again of base and patch
    found = export(run, "vllm", tmp_path / "served", limit=60, allow_unsafe=True)
    assert (found.checked.n, found.checked.verdicts) == (60, 0), found.checked.differing

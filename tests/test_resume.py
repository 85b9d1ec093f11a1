import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from actor_tune.errors import UserError
from actor_tune.records.request import CompareRequest, MeasureRequest, at_work

REQUEST = MeasureRequest(
    model="m",
    baseline=None,
    engine="transformers",
    base_url=None,
    dtype="auto",
    quantization="none",
    system_prompt=None,
    limit=None,
    max_safety_drop=None,
    max_new_tokens=32,
    prompts_sha256="0",
)


def open_request(folder, request):
    with at_work(folder, request):
        pass


FOLDERS = Path(__file__).parent / "files_of_version_0_1_0"


def test_a_request_begins_in_a_new_folder_and_goes_on_in_it(tmp_path):
    folder = tmp_path / "new"
    open_request(folder, REQUEST)
    later = {"chat_template_kwargs": {}, "max_reasoning_tokens": 1024, "gate_prompts": None, "engine_kwargs": {}}
    assert json.loads((folder / "request.json").read_text()) | later == asdict(REQUEST)
    (folder / "responses.jsonl").write_text("kept")
    open_request(folder, REQUEST)
    assert (folder / "responses.jsonl").read_text() == "kept"


@pytest.mark.parametrize(("name", "kind"), [("after", MeasureRequest), ("compared", CompareRequest)])
def test_a_request_is_written_as_version_0_1_0_wrote_it_and_goes_on_where_that_began(tmp_path, name, kind):
    written = (FOLDERS / name / "request.json").read_text()
    request = kind(**json.loads(written))
    open_request(tmp_path / "new", request)
    assert (tmp_path / "new" / "request.json").read_text() == written
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "request.json").write_text(written)
    open_request(tmp_path / "begun", request)


@pytest.mark.parametrize(
    ("begun", "asked", "message"),
    [
        ({}, {"max_new_tokens": 16}, "begun with max_new_tokens = 32; expected 16, as asked now"),
        ({}, {"gate_prompts": 200}, "begun with gate_prompts = null; expected 200, as asked now"),
        ({}, {"max_reasoning_tokens": 9}, "begun with max_reasoning_tokens = null; expected 9, as asked now"),
        ({}, {"limit": 3}, "begun with limit = null; expected 3, as asked now"),
        ({"sets": ["a", "b"]}, {}, 'begun with sets = ["a", "b"]; expected null, as asked now'),
    ],
)
def test_another_request_is_refused_and_the_difference_named(tmp_path, begun, asked, message):
    (tmp_path / "request.json").write_text(json.dumps(asdict(REQUEST) | begun))
    (tmp_path / "responses.jsonl").touch()
    with pytest.raises(UserError, match=re.escape(f"`output_dir={tmp_path}`: {message}")):
        open_request(tmp_path, replace(REQUEST, **asked))


def test_a_comparison_with_another_chat_template_argument_is_refused(tmp_path):
    request = CompareRequest(**json.loads((FOLDERS / "compared" / "request.json").read_text()))
    open_request(tmp_path, request)
    (tmp_path / "cae-0.json").touch()
    with pytest.raises(UserError, match=re.escape('begun with chat_template_kwargs = null; expected {"thinking": ')):
        open_request(tmp_path, replace(request, chat_template_kwargs={"thinking": False}))


def test_a_request_without_an_answer_yet_may_be_corrected_in_its_folder(tmp_path):
    open_request(tmp_path, replace(REQUEST, model="mistyped"))
    open_request(tmp_path, REQUEST)
    assert json.loads((tmp_path / "request.json").read_text())["model"] == "m"


def test_a_request_that_another_program_wrote_is_left_alone(tmp_path):
    (tmp_path / "request.json").write_text('{"url": "x"}')
    with pytest.raises(UserError, match="begun with url"):
        open_request(tmp_path, REQUEST)
    assert (tmp_path / "request.json").read_text() == '{"url": "x"}'


def test_a_setting_that_the_begun_request_does_not_name_is_none(tmp_path):
    begun = {name: value for name, value in asdict(REQUEST).items() if value is not None}
    (tmp_path / "request.json").write_text(json.dumps(begun))
    open_request(tmp_path, REQUEST)


def test_results_are_never_overwritten(tmp_path):
    open_request(tmp_path, REQUEST)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(UserError, match="a folder with results"):
        open_request(tmp_path, REQUEST)


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="a folder that is not empty"):
        open_request(tmp_path, REQUEST)
    with pytest.raises(UserError, match="a file; expected a new or empty folder"):
        open_request(tmp_path / "thesis.tex", REQUEST)


@pytest.mark.parametrize(("content", "found"), [("{", "not JSON"), ("[]", "[]")])
def test_a_damaged_request_is_named(tmp_path, content, found):
    (tmp_path / "request.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(f"request.json: {found}")) as caught:
        open_request(tmp_path, REQUEST)
    assert str(caught.value).endswith("; repeat that request, or choose another folder")


def test_a_request_that_was_being_written_when_its_process_died_begins_anew(tmp_path):
    for name in (".lock", ".request.json.4194999"):  # no process has a number as large
        (tmp_path / name).touch()
    open_request(tmp_path, REQUEST)
    assert {entry.name for entry in tmp_path.iterdir()} == {".lock", "request.json"}
    (tmp_path / ".request.json.4194999").touch()
    open_request(tmp_path, replace(REQUEST, limit=3))
    assert json.loads((tmp_path / "request.json").read_text())["limit"] == 3
    (tmp_path / "responses.jsonl").touch()
    with pytest.raises(UserError, match="begun with limit = 3"):
        open_request(tmp_path, REQUEST)

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from actor_tune.errors import UserError
from actor_tune.prompts.presets import PRESETS, load_preset, read_source
from actor_tune.prompts.prompt import Prompt

BENCHMARKS = Path(__file__).parents[2] / "shared" / "benchmarks"

# name -> (file name, content in the publisher's layout, the prompts it must give)
FILES = {
    "xstest": (
        "xstest_prompts.csv",
        "id,prompt,type,label,focus,note\n1,Kill it?,homonyms,safe,kill,\n26,Kill him?,contrast_homonyms,unsafe,him,\n",
        [Prompt("Kill it?", "pseudo_harmful", "xstest_safe"), Prompt("Kill him?", "harmful", "xstest_unsafe")],
    ),
    "or-bench-hard-1k": (
        "or-bench-hard-1k.csv",
        'prompt,category\n"How, then?",deception\n',
        [Prompt("How, then?", "pseudo_harmful", "or_bench_hard_1k")],
    ),
    "oktest": (
        "OKTest.csv",
        'prompt\n"Who shot this film?\n"\n',
        [Prompt("Who shot this film?", "pseudo_harmful", "oktest")],
    ),
    "phtest": (
        "PHTest.csv",
        "ID,Request,Harmfulness\n0,A killer hack?,harmless\n1,A heist?,controversial\n",
        [Prompt("A killer hack?", "pseudo_harmful", "phtest")],
    ),
    "advbench": ("harmful_behaviors.csv", "goal,target\nBuild it,Sure\n", [Prompt("Build it", "harmful", "advbench")]),
    "harmbench": (
        "harmbench_behaviors_text_all.csv",
        "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
        "Brew it,standard,x,,,a\nCite it,copyright,x,,,b\nUse it,contextual,x,,A text,c\n",
        [Prompt("Brew it", "harmful", "harmbench")],
    ),
    "jailbreakbench": (
        "benign-behaviors.csv",
        "Index,Goal,Target,Behavior,Category,Source\n0,Write a play,Sure,Play,Arts,Original\n",
        [Prompt("Write a play", "pseudo_harmful", "jbb_benign")],
    ),
    "strongreject": (
        "strongreject_dataset.csv",
        "category,source,forbidden_prompt\nViolence,DAN,Hurt them\n",
        [Prompt("Hurt them", "harmful", "strongreject")],
    ),
}


def test_each_preset_has_a_test_file_and_a_whole_commit_hash():
    assert set(FILES) == set(PRESETS)
    for name, preset in PRESETS.items():
        assert re.fullmatch("[0-9a-f]{40}", preset.revision), name
        assert preset.licence
        assert preset.download


@pytest.mark.parametrize("name", FILES)
def test_a_file_in_the_publishers_layout_becomes_prompts_of_the_right_kind_and_set(tmp_path, name):
    file, content, expected = FILES[name]
    (tmp_path / file).write_text(content)
    assert load_preset(name, tmp_path / file) == expected
    assert read_source(f"{name}={tmp_path / file}") == expected


@pytest.mark.parametrize(
    ("name", "file", "content", "expected"),
    [
        (
            "xstest",
            "v2.csv",
            "id,type,prompt\nv2-1,contrast_homonyms,Kill?\n",
            Prompt("Kill?", "harmful", "xstest_unsafe"),
        ),
        (
            "advbench",
            "a.jsonl",
            '{"prompt": "Build it", "target": "Sure"}\n',
            Prompt("Build it", "harmful", "advbench"),
        ),
        ("harmbench", "a.csv", "prompt,category\nBrew it,x\n", Prompt("Brew it", "harmful", "harmbench")),
        ("jailbreakbench", "harmful-behaviors.csv", "Goal\nHurt\n", Prompt("Hurt", "harmful", "jbb_harmful")),
        ("jailbreakbench", "a.csv", "Goal,split\nHurt,harmful\n", Prompt("Hurt", "harmful", "jbb_harmful")),
        ("strongreject", "a.csv", "prompt,category\nHurt,x\n", Prompt("Hurt", "harmful", "strongreject")),
    ],
)
def test_other_layouts_in_use_are_read_too(tmp_path, name, file, content, expected):
    (tmp_path / file).write_text(content)
    assert load_preset(name, tmp_path / file) == [expected]


def test_the_jailbreakbench_folder_does_not_decide_the_kind(tmp_path):
    folder = tmp_path / "harmful"
    folder.mkdir()
    (folder / "benign-behaviors.csv").write_text("Goal\nWrite a play\n")
    assert load_preset("jailbreakbench", folder / "benign-behaviors.csv")[0].kind == "pseudo_harmful"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("xstest", "prompt,label\nHi,maybe\n", "row 2: label 'maybe'; expected one of safe, unsafe"),
        ("xstest", "prompt\nHi\n", "no column `type` (columns: prompt)"),
        ("phtest", "ID,Request,Harmfulness\n0,Hi,controversial\n", "none of 1 rows is used by the preset phtest"),
        ("advbench", "text\nHi\n", "no column `prompt` (columns: text)"),
        ("jailbreakbench", "Goal\nHi\n", "harmful or benign behaviours?"),
    ],
)
def test_a_file_of_another_layout_gets_one_line_that_says_what_is_wrong(tmp_path, name, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=re.escape(message)):
        load_preset(name, tmp_path / "a.csv")


class Fetched:
    """Stands in for the package datasets: gives `rows` and remembers what it was asked for."""

    def __init__(self, monkeypatch, rows, error=None):
        self.calls, self.rows, self.error = [], rows, error
        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=self.load_dataset))

    def load_dataset(self, path, name=None, *, split, revision=None, data_files=None):
        self.calls.append((path, name, split, revision, data_files))
        if self.error:
            raise self.error
        return self.rows


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if name != "jailbreakbench"])
def test_a_preset_is_fetched_at_its_pinned_commit_and_no_other(monkeypatch, name):
    preset = PRESETS[name]
    labels = {"label": "safe", "Harmfulness": "harmless", "FunctionalCategory": "standard"}
    fetched = Fetched(monkeypatch, [{preset.columns[0]: " Hi ", **labels}])
    assert [prompt.text for prompt in load_preset(name)] == ["Hi"]
    (path, config, split, revision, url) = fetched.calls[0]
    if preset.file:
        assert path == "csv"
        assert f"/{preset.repository}/{preset.revision}/" in url
    else:
        assert (path, config) == (preset.repository, preset.config)
        assert revision == preset.revision
        assert [split] == preset.splits
    assert len(fetched.calls) == 1


def test_the_splits_of_jailbreakbench_are_fetched_apart_and_keep_their_kinds(monkeypatch):
    fetched = Fetched(monkeypatch, [{"Goal": "Hi"}])
    found = load_preset("jailbreakbench")
    assert [(prompt.kind, prompt.set) for prompt in found] == [
        ("harmful", "jbb_harmful"),
        ("pseudo_harmful", "jbb_benign"),
    ]
    revision = PRESETS["jailbreakbench"].revision
    assert [call[1:4] for call in fetched.calls] == [
        ("behaviors", "harmful", revision),
        ("behaviors", "benign", revision),
    ]


def test_without_network_the_next_step_is_a_file(monkeypatch):
    Fetched(monkeypatch, [], ConnectionError("Couldn't reach 'Paul/XSTest' on the Hub"))
    with pytest.raises(UserError) as caught:
        read_source("xstest")
    assert "cannot be fetched (Couldn't reach" in str(caught.value)
    assert caught.value.fix.endswith("give it as `prompts=xstest=FILE`")
    assert "terms" not in caught.value.fix


def test_a_gated_set_says_that_its_terms_must_be_accepted(monkeypatch):
    Fetched(monkeypatch, [], FileNotFoundError("Dataset 'walledai/AdvBench' is a gated dataset on the Hub."))
    with pytest.raises(
        UserError, match=r"accept its terms on the Hub and run `hf auth login`, or download .* on GitHub"
    ):
        load_preset("advbench")


def test_without_the_package_datasets_the_extra_and_the_file_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"actor-tune\[hub\]'.* `prompts=oktest=FILE`"):
        load_preset("oktest")


def test_a_value_without_a_preset_is_a_file_of_our_own_layout(tmp_path):
    file = tmp_path / "a=b.csv"
    file.write_text("prompt,kind\nHi,harmless\n")
    assert read_source(str(file)) == [Prompt("Hi", "harmless", "a=b")]


@pytest.mark.parametrize("value", ["xtest", "xtest=a.csv", "mine"])
def test_a_wrong_name_lists_the_presets(value):
    with pytest.raises(UserError, match=r"neither a file nor a preset; expected a file or a preset \(xstest, or-bench"):
        read_source(value)


def test_a_preset_with_nothing_after_the_sign_is_refused():
    with pytest.raises(UserError, match="no file after ="):
        read_source("xstest=")


def test_an_unknown_preset_is_named():
    with pytest.raises(UserError, match="preset nope: unknown; expected one of xstest"):
        load_preset("nope")


def test_a_missing_file_is_named(tmp_path):
    for value in (f"xstest={tmp_path / 'no.csv'}", str(tmp_path / "no.csv")):
        with pytest.raises(UserError, match="no such file"):
            read_source(value)


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the folder of public benchmarks is not beside the repository")
def test_the_public_files_have_their_known_numbers_of_prompts():
    def counts(name, file):
        sets = [prompt.set for prompt in load_preset(name, BENCHMARKS / file)]
        return {set_name: sets.count(set_name) for set_name in sets}

    assert counts("xstest", "xstest.csv") == {"xstest_safe": 250, "xstest_unsafe": 200}
    assert counts("or-bench-hard-1k", "or_bench_hard_train.csv") == {"or_bench_hard_1k": 1055}
    assert counts("advbench", "advbench.csv") == {"advbench": 520}

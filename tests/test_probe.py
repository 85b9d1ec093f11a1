import gc
import json
import math
import weakref
from pathlib import Path

import pytest
import torch

from actor_tune.comparison.probe import TOPICS, damage_by_topic, durability, jensen_shannon, probe, topics
from actor_tune.engines.engine import Opened, Subject
from actor_tune.engines.local import local_engine
from actor_tune.measurement.damage import AnswerLogprobs
from actor_tune.prompts.prompt import Prompt, of_kind
from actor_tune.prompts.starter import starter
from actor_tune.records.file import json_of, read
from actor_tune.records.probe import Probe
from actor_tune.records.response import Response
from actor_tune.show.probe import draw_durability, probe_tables
from conftest import make_model, make_prompts
from test_cli import run


def test_the_divergence_is_0_for_equals_ln_2_for_strangers_and_right_between():
    same, other = torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.5])
    assert jensen_shannon(same.log(), same.log()) == pytest.approx(0, abs=1e-7)
    apart = torch.tensor([[1 - 1e-9, 1e-30], [1e-30, 1 - 1e-9]]).log()
    assert jensen_shannon(apart[0], apart[1]) == pytest.approx(math.log(2), rel=1e-5)
    middle = (same + other) / 2
    by_hand = sum(float((p * (p / middle).log()).sum()) for p in (same, other)) / 2
    assert jensen_shannon(same.log(), other.log()) == pytest.approx(by_hand, rel=1e-5)


def test_prompts_about_like_things_are_one_topic_named_by_its_words():
    texts = [
        "bake bread with yeast",
        "knead bread and bake",
        "bread yeast bake",
        "paint a violin",
        "violin strings",
        "play the violin",
    ]
    found = topics([Prompt(text, "harmless", "s") for text in texts], count=2)
    assert sorted(found.values()) == [[0, 1, 2], [3, 4, 5]]
    assert any("bread" in name for name in found)
    assert any("violin" in name for name in found)


def test_short_prompts_with_few_words_in_common_do_not_all_fall_into_one_topic():
    found = topics(of_kind(starter("held_out"), "harmless"))
    assert len(found) == TOPICS
    assert max(map(len, found.values())) < 60, "of 120"


def test_prompts_without_a_telling_word_are_one_topic_and_none_is_lost():
    for text in ("and of the", "and bread"):
        assert topics([Prompt(text, "harmless", "s")] * 2) == {"all": [0, 1]}
    rolls = [Prompt("bread rolls", "harmless", "s")]
    assert topics(rolls) == {"bread, rolls": [0]}
    assert sorted(topics([*rolls * 3, Prompt("and", "harmless", "s")]).items()) == [
        ("bread, rolls", [0, 1, 2]),
        ("other", [3]),
    ]
    texts = ["and of", "of the", "bread rolls", "violin"]
    found = topics([Prompt(text, "harmless", "s") for text in texts], count=3)
    assert sorted(row for rows in found.values() for row in rows) == [0, 1, 2, 3]


def test_damage_is_averaged_over_tokens_then_prompts_and_the_worst_topic_is_first():
    uniform, peaked = torch.tensor([0.5, 0.5]).log(), torch.tensor([1 - 1e-9, 1e-9]).log()
    first = torch.tensor([True, False, True])
    before = AnswerLogprobs(torch.stack([uniform, uniform, uniform]), first)
    after = AnswerLogprobs(torch.stack([uniform, peaked, uniform]), first)
    worst, calm = damage_by_topic({"calm": [1], "torn": [0]}, before, after)
    assert (worst.name, calm.divergence) == ("torn", pytest.approx(0, abs=1e-7))
    assert worst.divergence == pytest.approx(float(jensen_shannon(uniform, peaked)) / 2)


def test_durability_looks_before_and_on_the_way_and_leaves_the_model_as_it_was(chat_model, prompts, tmp_path):
    pytest.importorskip("peft")
    before = {key: tensor.clone() for key, tensor in chat_model.model.state_dict().items()}
    answers = [Response(prompt, "yes", True) for prompt in prompts if prompt.kind == "harmless"]
    held_out = [prompt for prompt in prompts if prompt.kind != "harmless"]
    curve = durability(chat_model, answers, held_out, torch.tensor([0, 5]), steps=3, every=2, seed=0)
    assert [step.number for step in curve] == [0, 2, 3], "the last step too"
    assert (curve[0].compliance, curve[0].safety) != (curve[2].compliance, curve[2].safety)
    assert all(torch.equal(tensor, before[key]) for key, tensor in chat_model.model.state_dict().items())
    draw_durability(tmp_path / "d.png", {"default": curve, "calibrated": curve})
    assert (tmp_path / "d.png").read_bytes()[:4] == b"\x89PNG"
    assert probe_tables(Probe(model="m", base="b", durability={"default": curve})).renderables[0].row_count == 3


def probed(work=None, default=None, trained=None):
    """A probe of a tiny model beside another one of the same size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("actor_tune.comparison.probe.starter", lambda _part: make_prompts(6))
        return probe(
            Subject("base", default or opening(make_model)),
            Subject("run/model", trained or opening(other_model)),
            steps=2,
            every=1,
            work=work,
        )


def opening(make):
    def open_it():
        model = make()
        return Opened(local_engine(model), model)

    return open_it


def other_model():
    model = make_model()
    for parameter in model.model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def test_a_probe_is_the_same_in_memory_and_with_its_answers_kept(tmp_path, monkeypatch):
    pytest.importorskip("peft")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = probed()
    assert not [*Path().iterdir()]
    assert (found.base, found.model) == ("base", "run/model")
    assert {name: [step.number for step in curve] for name, curve in found.durability.items()} == {
        "default": [0, 1, 2],
        "calibrated": [0, 1, 2],
    }
    assert sum(topic.prompts for topic in found.topics) == 6
    assert found.topics[0].divergence > 0
    assert probed(tmp_path / "work") == found
    assert {file.name for file in tmp_path.glob("work/*.jsonl")} == {"benign.jsonl", "harmless.jsonl"}


def test_the_default_model_is_let_go_before_the_calibrated_one_is_opened():
    pytest.importorskip("peft")
    models = []

    def open_default():
        model = make_model()
        models.append(weakref.ref(model.model))
        return Opened(local_engine(model), model)

    def open_trained():
        gc.collect()
        assert [model() for model in models] == [None]
        return opening(other_model)()

    probed(default=open_default, trained=open_trained)
    assert len(models) == 1


def test_a_probe_of_version_0_1_0_is_read_and_written_as_it_is():
    folder = Path(__file__).parent / "files_of_version_0_1_0"
    stored = json.loads((folder / "probe.json").read_text())
    assert {"schema": 1} | json_of(read(Probe, folder)) == stored


def test_a_run_without_a_model_cannot_be_probed(tmp_path, capsys):
    assert run("probe", tmp_path, "--output-dir", tmp_path / "p") == 2
    assert "no run.json" in capsys.readouterr().err
    (tmp_path / "run.json").write_text(json.dumps({"model": {"name": "m"}}))
    assert run("probe", tmp_path, "--output-dir", tmp_path / "p") == 2
    assert "withheld" in capsys.readouterr().err

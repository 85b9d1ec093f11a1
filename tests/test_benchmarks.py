import sys
from types import ModuleType

import pytest

from actor_tune.errors import UserError
from actor_tune.measurement.lm_eval import run_lm_eval


class LmEval:
    """Stands in for lm-eval: knows the task toy and the group mmlu, gives `results`, remembers what it was asked."""

    def __init__(self, monkeypatch, results=None, error=None):
        self.asked, self.results, self.error = {}, results, error
        names = ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface", "lm_eval.tasks")
        modules = {name: ModuleType(name) for name in names}
        modules["lm_eval"].simple_evaluate = self.simple_evaluate
        modules["lm_eval.models.huggingface"].HFLM = self.model
        modules["lm_eval.tasks"].TaskManager = self.tasks
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def model(self, *, pretrained, device, batch_size):
        self.asked |= {"model": pretrained, "device": device}
        return "the model"

    def tasks(self, include_path):
        self.asked["own"] = include_path
        return self

    def match_tasks(self, names):
        return [name for name in names if name in ("toy", "mmlu")]

    def simple_evaluate(self, *, model, tasks, limit, task_manager, log_samples, bootstrap_iters):
        assert model == "the model"
        assert task_manager is self
        self.asked |= {"tasks": tasks, "limit": limit}
        if self.error:
            raise self.error
        return {"results": self.results}


def test_each_task_has_its_metrics_with_their_standard_errors(monkeypatch, tmp_path):
    lm_eval = LmEval(
        monkeypatch,
        {
            "toy": {"alias": "toy", "acc,none": 0.75, "acc_stderr,none": 0.1, "f1,none": 0.5, "f1_stderr,none": "N/A"},
            "mmlu": {"alias": "mmlu", "exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.2},
        },
    )
    found = run_lm_eval(tmp_path, ["toy", "mmlu"], 7, "cpu", own_tasks=tmp_path / "tasks")
    assert found == {
        "toy": {"acc": 0.75, "acc_stderr": 0.1, "f1": 0.5},
        "mmlu": {"exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.2},
    }
    assert lm_eval.asked == {
        "model": str(tmp_path),
        "device": "cpu",
        "own": str(tmp_path / "tasks"),
        "tasks": ["toy", "mmlu"],
        "limit": 7,
    }


def test_a_number_that_json_cannot_hold_is_left_out(monkeypatch, tmp_path):
    LmEval(monkeypatch, {"toy": {"acc,none": 0.5, "acc_stderr,none": float("nan"), "perplexity,none": float("inf")}})
    assert run_lm_eval(tmp_path, ["toy"], None, "cpu") == {"toy": {"acc": 0.5}}


def test_an_unknown_task_is_named_before_the_model_is_loaded(monkeypatch, tmp_path):
    lm_eval = LmEval(monkeypatch)
    with pytest.raises(UserError, match=r"`lm_eval=mmul`: unknown to lm-eval; .* `lm-eval ls tasks`"):
        run_lm_eval(tmp_path, ["toy", "mmul"], None, "cpu")
    assert "model" not in lm_eval.asked


def test_questions_that_cannot_be_fetched_are_a_mistake_with_a_next_step(monkeypatch, tmp_path):
    LmEval(monkeypatch, error=ConnectionError("Couldn't reach 'cais/mmlu' on the Hub\nmore"))
    with pytest.raises(
        UserError, match=r"`lm_eval=mmlu`: its questions cannot be had \(Couldn't reach .* on the Hub\); expected"
    ):
        run_lm_eval(tmp_path, ["mmlu"], None, "cpu")


def test_a_bug_in_a_task_keeps_its_traceback(monkeypatch, tmp_path):
    LmEval(monkeypatch, error=TypeError("a bug"))
    with pytest.raises(TypeError, match="a bug"):
        run_lm_eval(tmp_path, ["toy"], None, "cpu")


def test_without_lm_eval_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"pip install 'actor-tune\[lm-eval\]'"):
        run_lm_eval(tmp_path, ["toy"], None, "cpu")

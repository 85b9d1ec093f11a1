from rich.console import Console

from actor_tune.comparison.outcomes import SCORES, summary
from actor_tune.records.estimate import Estimate
from actor_tune.records.outcome import MethodOutcome
from actor_tune.show import comparison
from actor_tune.show.comparison import compare_table, draw_frontier


def outcome(method, seed, value, strength=1.0, within=True):
    scores = {name: Estimate(value, value - 0.1, value + 0.1) for name in SCORES}
    curve = [{"strength": 0.0, "compliance": 0.3, "safety": 0.9, "kl_harmless": 0.0}]
    return MethodOutcome(method, seed, strength, within, curve, scores, {}, 0.1, 0.0, 10.0, 5.0, 20.0)


def test_the_table_shows_the_best_first_and_marks_what_did_not_keep_safety(tmp_path):
    summaries = [
        summary([outcome("default", 0, 0.5)]),
        summary([outcome("cae", 0, 0.6, within=False), outcome("cae", 1, 0.7)]),
    ]
    console = Console(width=160, record=True)
    console.print(compare_table(summaries))
    text = console.export_text()
    assert text.index("cae !") < text.index("default")
    assert "65.0" in text
    draw_frontier(tmp_path / "f.png", summaries)
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"


def test_compliance_goes_to_the_right_and_safety_up_as_in_the_report(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(comparison, "save_figure", lambda figure, path: kept.append(figure))
    draw_frontier(tmp_path / "f.png", [summary([outcome("default", 0, 0.5)])])
    curves, measured = kept[0].axes
    for panel in (curves, measured):
        assert panel.get_xlabel().startswith("compliance")
        assert panel.get_ylabel().startswith("safety")
    assert curves.lines[0].get_xydata().tolist() == [[30.0, 90.0]]

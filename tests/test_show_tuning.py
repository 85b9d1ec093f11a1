import io

from rich.console import Console

from actor_tune.records.tune import StudyTrial, Tuning
from actor_tune.show.tuning import SHOWN, trials_table, tuning_told
from test_tuning import rates


def tuned(taken: int) -> Tuning:
    trials = [
        StudyTrial(
            number=number,
            defaults=number == 0,
            settings={"layer": 15, "changes": {"strength": 1.0}},
            answers=rates(0.5 + number / 100, 0.9),
            broken=["KL"] if number == 12 else [],
            best=False,
            seconds=1.0,
            worker="one",
        )
        for number in range(13)
    ]
    return Tuning(
        trials=trials,
        taken=taken,
        trained_on=1,
        searched_on=1,
        fresh=1,
        optimism=None,
        compared=[],
        storage="s",
        workers=1,
        seconds=1.0,
    )


def test_the_best_trials_fit_into_eighty_columns_with_the_one_taken_marked():
    console = Console(width=80, file=(shown := io.StringIO()))
    console.print(trials_table(tuned(11)))
    text = shown.getvalue()
    assert "compliance" in text
    assert "trade-off" in text
    rows = [line.replace("│", " ").split() for line in text.splitlines() if "│" in line]
    assert len(rows) == SHOWN
    assert rows[0][0] == "12"
    assert rows[0][-1] == "no"
    assert rows[1][:2] == ["11", "*"]


def test_it_is_said_where_the_defaults_did_best():
    assert "none led the defaults of `fit` by more than chance, and these were taken" in tuning_told(tuned(0))
    assert "trial 7 did best and was taken; nothing of it was kept on fresh prompts" in tuning_told(tuned(7))

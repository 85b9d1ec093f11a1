"""The page on scale says what the cost model says, and the job files beside it are such as their programs take."""

import re
import shlex
import subprocess
from dataclasses import replace

import pytest
import yaml

from actor_tune.repair.cost import Texts
from actor_tune.repair.refusals import ANSWER_TOKENS
from actor_tune.tuning.study import RANDOM
from tools import make_scale_page
from tools.make_commands_page import commands, options
from tools.make_scale_page import STREAMED, STUDY, placed, planned

JOBS = STUDY.parent
STUDIES = [JOBS / name for name in ("compose.yaml", "study.slurm", "kubernetes.yaml")]


@pytest.fixture(autouse=True)
def answers_of_a_real_length(short_gate_answers, monkeypatch):
    """As the page is made."""
    for module in ("gate", "refusals"):
        monkeypatch.setattr(f"actor_tune.repair.{module}.ANSWER_TOKENS", ANSWER_TOKENS)


def test_the_page_is_not_stale():
    made = make_scale_page.page()
    assert (STUDY.parents[1] / "scale.md").read_text(encoding="utf-8") == made, "run: make pages"


def texts_of(value):
    """All commands in what YAML holds: a list that begins with `actor`, and each string that may be a script."""
    if isinstance(value, list) and value[:1] == ["actor"]:
        yield shlex.join(value)
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts_of(each)
    elif isinstance(value, str):
        yield value


def scripts(file):
    """Scripts and commands in a job file."""
    text = file.read_text(encoding="utf-8")
    return [each for part in yaml.safe_load_all(text) for each in texts_of(part)] if file.suffix == ".yaml" else [text]


def actor_lines(file):
    """The arguments of each command `actor` in a job file; what the shell would put in stands as it is."""
    for script in scripts(file):
        for line in script.replace("\\\n", " ").splitlines():
            if found := re.match(r"\s*(?:exec |srun )?actor (.+)", line):
                yield [word for word in shlex.split(found[1], comments=True) if word != "$@"]


def asked(file):
    """What each command of a job file is asked for: its name and its settings."""
    for name, *arguments in actor_lines(file):
        yield name, commands()[name].make_context(name, arguments).params


@pytest.mark.parametrize("file", [*sorted(JOBS.glob("*.*aml")), JOBS / "study.slurm"], ids=lambda file: file.name)
def test_a_job_file_has_commands_that_actor_takes(file):
    found = [name for name, _ in asked(file)]
    assert set(found) == ({"fit", "measure", "report"} if file.name == "nightly.yaml" else {"tune"})


def test_a_command_with_an_option_that_actor_does_not_have_is_found(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text((JOBS / "compose.yaml").read_text().replace("--storage=", "--store="))
    with pytest.raises(Exception, match="--store"):
        list(asked(file))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.name)
def test_the_processes_of_a_study_are_asked_for_the_same_but_one_has_the_folder(file):
    every = [params for _, params in asked(file)]
    folders = [params.pop("output_dir") for params in every]
    if file.name == "kubernetes.yaml":  # the shell adds it in one of the pods
        assert re.findall(r"if .+ = 0 \]; then.*\n\s*set -- --output-dir \S+\n", scripts_text(file))
        folders = ["run", *folders]
    assert len([folder for folder in folders if folder]) == 1
    assert all(params == every[0] for params in every)
    assert every[0]["storage"]


def scripts_text(file):
    return "\n".join(scripts(file))


def test_the_slurm_script_and_the_scripts_of_pods_are_bash():
    shells = [scripts_text(JOBS / "study.slurm")]
    for name in ("kubernetes.yaml", "nightly.yaml"):
        shells += [text for text in scripts(JOBS / name) if "actor " in text]
    assert len(shells) == 3
    for script in shells:
        told = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert told.returncode == 0, told.stderr


def test_a_password_is_in_no_job_file_and_each_worker_is_given_it():
    for file in STUDIES:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"postgresql://\w+:", text)
        assert not re.search(r"PASSWORD: ", text)
    services = yaml.safe_load((JOBS / "compose.yaml").read_text())["services"]
    assert all(service["env_file"] == "study.env" for service in services.values())
    devices = [service["environment"].get("CUDA_VISIBLE_DEVICES") for service in services.values()]
    assert sorted(filter(None, devices)) == [str(number) for number in range(8)]
    *_, job = yaml.safe_load_all((JOBS / "kubernetes.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    given = {entry["name"]: entry for entry in container["env"]}
    assert "secretKeyRef" in given["PGPASSWORD"]["valueFrom"]
    assert given["TMPDIR"]["value"] in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_postgresql_is_told_to_take_all_connections_of_the_job():
    per_process = make_scale_page.of_study()["postgresql"]["connections"]
    for file, processes in (("compose.yaml", 8), ("kubernetes.yaml", make_scale_page.WORKERS)):
        (told,) = re.findall(r"max_connections=(\d+)", (JOBS / file).read_text())
        assert int(told) >= (per_process + 1) * processes, "one more where a process begins"


@pytest.mark.parametrize(("model", "parameters"), [("8B", 8.03e9), ("70B", 70.55e9), ("405B", 405.85e9)])
def test_the_models_have_the_sizes_that_their_names_say(model, parameters):
    assert planned(model).size.parameters == pytest.approx(parameters, rel=1e-3)


def test_what_is_spread_needs_the_weights_over_all_devices_and_the_rest_on_one():
    one, spread = placed("70B", "one GPU"), placed("70B", make_scale_page.SPREAD)
    phase = one.heaviest
    weights = 2 * planned("70B").size.parameters
    assert spread.on_one(phase) == pytest.approx(one.on_one(phase) - weights * 7 / 8)
    assert one.gpu_hours * 8 != spread.gpu_hours  # fewer answers at a time where memory is short


def test_training_is_the_heaviest_phase_as_the_page_says():
    assert {each.heaviest.name for ways in make_scale_page.all_placed().values() for each in ways.values()} == {"train"}


def test_a_model_that_one_gpu_does_not_hold_is_fitted_by_all_and_not_tuned():
    spent = make_scale_page.night("70B")
    assert spent["fit"] == placed("70B", make_scale_page.SPREAD).gpu_hours
    assert spent["tune"] is None
    assert not {"--device-map", "--offload", "--quantization"} & options(commands()["tune"]), "then the page is wrong"


def test_a_step_of_answers_reads_all_weights_once():
    """70 B in bfloat16, 3.35 TB/s of which 0.4 are reached: 141 GB take 0.105 s, whatever is answered together."""
    cost = planned("70B")
    each = cost.computing(cost.every, 0, 0, steps=cost.answer_batch)
    weights = 2 * cost.size.within(cost.every)
    assert make_scale_page.speed(cost).seconds(each) == pytest.approx(weights / (0.4 * 3.35e12))


def test_reading_is_what_takes_long_where_a_model_is_streamed():
    streamed = placed("405B", STREAMED)
    assert sum(streamed.seconds.values()) == pytest.approx(
        streamed.read / 5e9 + 3600 * make_scale_page.computing_hours("405B")
    )


def test_the_most_prompts_are_such_as_fit_and_a_hundred_more_do_not():
    most = make_scale_page.most_prompts("8B", "boundary", 50.0)
    fits = [make_scale_page.many("8B", count, 50.0, "boundary").need.lack is None for count in (most, most + 200)]
    assert fits == [True, False]


def test_a_million_prompts_keep_tokens_times_width_times_bytes():
    cost = replace(planned("8B"), given=Texts(1_000_000, 50_000_000, 100))
    assert cost.kept() == 1_000_000 * 50 * 4096 * 2
    assert make_scale_page.gb(cost.kept()) == "409.6 GB"


@pytest.mark.parametrize(
    ("amount", "text"), [(12, "12 bytes"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (8.1e12, "8.1 TB"), (0, "0 bytes")]
)
def test_bytes_are_said_in_thousands(amount, text):
    assert make_scale_page.gb(amount) == text


def test_all_that_begin_before_enough_have_ended_are_by_chance():
    rows = make_scale_page.of_study()["rows"]
    assert [row["random"] for row in rows] == [RANDOM, RANDOM + 7, RANDOM + 63]
    assert rows[-1]["preparing"] > rows[0]["preparing"]
    assert rows[-1]["hours"] < rows[0]["hours"]

"""simclr-sweep: the studies of the paper, bad input, and a whole sweep that is stopped and goes on.

The two runs of the slow test take a few steps on digits.
"""

import json
import signal
import time

import jax
import pytest

from simclr_jax import eval, plan, sweep, train, verify
from simclr_jax.config import overrides, shipped
from simclr_jax.errors import HostError
from simclr_jax.pages import plots
from simclr_jax.sweeps import measured
from simclr_jax.sweeps import points as studies
from support import commands, sweeps
from support.runs import rows, status_of

PAPER = [name for name in shipped.records() if name.startswith("paper/")]
STUDY = """
from simclr_jax.config import default_sweep, shipped

def get_config(arguments=None):
    c = default_sweep.get_config("small")
    c.title, c.setting, c.axes = "Two strengths", "Digits, a few steps.", ("strength", "")
    c.run = shipped.load("digits")
    c.run.data.image_size = 8
    c.run.model.update(depth=18, width=0.0625)
    c.run.optim.warmup_epochs = 0.02
    c.run.train.update(batch_size=32, steps=6)
    c.run.eval.batch_size = 120
    c.run.checkpoint.update(every_steps=2, every_epochs=None)
    c.run.log.update(every_steps=1, tensorboard=False)
    default_sweep.add_measure(c, "knn", "top1", protocol="knn", keys={"knn.k": 20})
    default_sweep.add_measure(c, "entropy", "contrastive_entropy", percent=False)
    for name, strength in ("weak", 0.1), ("strong", 0.5):
        run = {"augment.strength": strength}
        default_sweep.add_point(c, name, at=(strength, ""), run=run, paper={"knn": 60.0})
    return c
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "two.py"
    path.write_text(STUDY)
    return path


@pytest.mark.parametrize("size", ["small", "paper"])
@pytest.mark.parametrize("name", PAPER)
def test_every_study_of_the_paper_is_one_that_can_run(name, size, tmp_path):
    config = overrides.load([f"--config={name}:size={size}"])
    found = studies.expand(config, tmp_path, devices=1)
    for measure in config.measures:
        sweep.check_measure(measure, config.measures[measure])
    measures = [config.measures[measure] for measure in config.measures]
    different = {(each.metric, each.eval.to_json(), each.untrained) for each in measures}
    assert len(different) == len(measures)
    taken = {measure for point in found for measure in point.measures}
    assert taken == {*config.measures}
    assert all(config.measures[measure].metric for measure in taken)
    assert size == "paper" or "docs/paper.md" in shipped.find(name).read_text()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--config.run.train.lr=1"], "did you mean config.run.optim.lr?"),
        (["--config.train.batch_size=1"], "did you mean config.run.train.batch_size?"),
        (["--config.learning_rate=1"], "did you mean config.run.optim.lr?"),
        (["--config.measure.knn=1"], "did you mean a key of config.measures.knn?"),
        (["--config.nonsense=1"], "--help lists the keys"),
        (["--config.seeds=a,b"], "config.seeds=('a', 'b'): must be different whole numbers"),
        (["--config.figure.kind=pie"], "config.figure.kind='pie': must be one of heatmap, lines"),
        (["--config.measures.knn.eval.protocol=nn"], "measure knn: config.protocol='nn': must be"),
        (["--config.measures.knn.eval.knn.k=0"], "measure knn: config.knn.k=0: must be"),
        (["--config.run.data.eval_split=tst"], "point weak-seed0: config.data.eval_split='tst': "),
        (["--config.seeds=0", "--index=2"], "--index=2: must be from 0 to 1"),
        (["--index=-1"], "--index=-1: must be from 0 to 1"),
        (["--list", "--gather"], "--list, --index, --gather: only one of them at a time"),
        (["--topology=v5e:4x4"], "--topology: only with --list"),
        (["--list", "--topology=v5e"], "--topology=v5e: "),
        (["--gather"], "no such folder"),
        (["--config=eval/knn"], "--config=eval/knn: is an evaluation's, which simclr-eval takes"),
        (["--config=digits"], "--config=digits: is a training run's, which simclr-train takes"),
        (["--config=paper/fig9"], "did you mean paper/fig9_batch_epochs?"),
        (["--config=paper/x"], "package (paper/fig5_augmentation, "),
        (["--config=paper/fig8_head:size=big"], "'size=big': must be one of small, paper"),
    ],
)
def test_bad_input_ends_with_2_and_a_line_before_anything_is_written(
    argv, said, study, tmp_path, capsys
):
    arguments = [f"--config={study}", f"--workdir={tmp_path / 'sweep'}", *argv]
    assert status_of(sweep.main, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert len(line) < 700
    assert not (tmp_path / "sweep").exists()


def test_a_folder_of_a_run_or_a_file_is_refused(study, tmp_path, capsys):
    (tmp_path / "config.json").touch()
    for workdir in tmp_path, tmp_path / "config.json":
        assert status_of(sweep.main, f"--config={study}", f"--workdir={workdir}") == 2
        assert capsys.readouterr().err.startswith(f"--workdir={workdir}")
    assert status_of(sweep.main, f"--config={study}") == 2
    assert capsys.readouterr().err.startswith("--workdir: required")


@pytest.mark.parametrize(
    ("command", "argv"),
    [(train, ["--workdir=x"]), (verify, []), (plan, ["--topology=v5e:4x4"]), (eval, ["--run=x"])],
)
def test_other_commands_name_the_one_that_takes_a_sweep(command, argv, study, capsys):
    assert status_of(command.main, f"--config={study}", *argv) == 2
    assert capsys.readouterr().err == f"--config={study}: is a sweep's, which simclr-sweep takes\n"


def test_help_has_the_keys_of_the_sweep_and_not_those_of_its_points(study, capsys):
    assert status_of(sweep.main, "--help", f"--config={study}") == 0
    out = capsys.readouterr().out
    assert "--config.title=Two strengths\n      The title of the table" in out
    assert "One that a point has for itself. NAME: weak, strong." in out
    assert len([line for line in out.splitlines() if "--config." in line]) == 10


def test_the_table_of_what_is_there_is_made_at_any_moment(study, tmp_path, capsys, monkeypatch):
    arguments = [f"--config={study}", f"--workdir={tmp_path}", "--gather"]
    assert status_of(sweep.main, *arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"table in {tmp_path}"
    config = overrides.load([f"--config={study}"])
    sweeps.finish(studies.expand(config, tmp_path, devices=1)[0], knn=0.5)
    with monkeypatch.context() as without:
        without.setattr(plots, "can_draw", lambda: False)
        assert status_of(sweep.main, *arguments) == 0
    out, err = capsys.readouterr()
    assert "pip install 'simclr_jax[figures]'; there is a table" in err
    assert out.splitlines()[-1].startswith(f"next: simclr-report {tmp_path}/points/* --html=")
    assert {path.name for path in tmp_path.iterdir()} == {"points", "table.json", "table.md"}
    assert status_of(sweep.main, *arguments) == 0
    assert {"figure.svg", "figure.png"} <= {path.name for path in tmp_path.iterdir()}
    assert "50.0 (paper 60.0)" in (tmp_path / "table.md").read_text()


def test_the_hours_on_a_slice_follow_from_one_compiled_step(study, tmp_path, capsys, compiler):
    arguments = ["--list", "--topology=v5e:4x8", "--config.run.eval.batch_size=128"]
    steps = "--config.run.train.steps=36000"
    argv = [f"--config={study}", f"--workdir={tmp_path}", *arguments, steps]
    assert status_of(sweep.main, *argv) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in out[1:3]] == [
        ["0", "weak-seed0", "36,000"],
        ["1", "strong-seed0", "36,000"],
    ]
    assert out[3].endswith("by plan of the first point on v5e:4x8")
    assert compiler == [32]


def test_a_measure_of_the_untrained_network_asks_for_it(study, tmp_path, monkeypatch):
    config = overrides.load([f"--config={study}"])
    untrained = overrides.changed(config, {"measures.knn.untrained": True})
    point = studies.expand(untrained, tmp_path, devices=1)[0]
    asked = []

    def evaluate(config, run, *, untrained):
        asked.append(untrained)
        return [{"top1": 0.5}]

    monkeypatch.setattr("simclr_jax.eval.evaluate", evaluate)
    monkeypatch.setattr("simclr_jax.sweeps.measured.of_run", lambda *of: 0.0)
    sweeps.finish(point)
    sweep._run_point(point)
    assert asked == [True]
    trained = studies.expand(config, tmp_path, devices=1)[0]
    assert {*measured.values(point)} == {"knn", "entropy"}
    assert {*measured.values(trained)} == {"entropy"}


def test_where_one_process_fails_the_others_are_not_waited_for_without_end(
    study, tmp_path, monkeypatch, capsys
):
    """They may wait for it within the point; then all end, and the same command goes on."""
    (point, _) = studies.expand(overrides.load([f"--config={study}"]), tmp_path, devices=1)

    def fail(point):
        raise KeyError("a bug")

    def meet(about, *, seconds):
        raise HostError(f"{about}: nobody came in {seconds} s")

    monkeypatch.setattr(sweep, "_run_point", fail)
    assert sweep._attempt(point) == "KeyError: 'a bug'"
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setattr("simclr_jax.processes.meet", meet)
    with pytest.raises(HostError, match="failed: nobody came in 300 s"):
        sweep._attempt(point)


def results(folder):
    """The rows and the measures of a sweep's points, without what depends on the clock."""
    measured = {
        path.parent.name: json.loads(path.read_text())["measures"]
        for path in folder.glob("points/*/measured.json")
    }
    return measured, {path.name: rows(path) for path in (folder / "points").iterdir()}


def ran(study, folder, capsys, *argv):
    """The status, the stdout and the stderr of a sweep in this process."""
    status = status_of(sweep.main, f"--config={study}", f"--workdir={folder}", *argv)
    return status, *capsys.readouterr()


def wait_for_row(process, file, step):
    """Waits until a run has written the row of a step."""
    while not file.exists() or f'"step": {step},' not in file.read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on_to_the_same_numbers(study, tmp_path, capsys):
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"

    def run(folder, *argv):
        return ran(study, folder, capsys, *argv)

    status, out, err = run(undisturbed, "--list")
    assert (status, "timing a few steps of the first point" in err.splitlines()) == (0, True)
    assert "by a few steps of the first point that were timed on this machine" in out
    assert not undisturbed.exists()

    # The point that is asked for alone, and then what is left.
    status, out, _ = run(undisturbed, "--index=1")
    assert (status, "point 1 of 2: strong-seed0" in out.splitlines()) == (0, True)
    status, out, _ = run(undisturbed)
    assert (status, "point 0 of 2: weak-seed0" in out.splitlines()) == (0, True)
    assert "point 1 of 2" not in out
    status, out, _ = run(undisturbed, "--list")
    assert [line.split()[-1] for line in out.splitlines()[1:3]] == ["done", "done"]
    assert out.splitlines()[-1].endswith("by the runs that are finished")
    names = {"table.json", "table.md", "figure.svg", "figure.png"}
    assert names <= {path.name for path in undisturbed.iterdir()}

    argv = [f"--config={study}", f"--workdir={stopped}"]
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.values["jax_compilation_cache_dir"]}
    process = commands.start("-m", "simclr_jax.sweep", *argv, devices=8, **cache)
    wait_for_row(process, stopped / "points/weak-seed0/metrics.jsonl", 2)
    process.send_signal(signal.SIGTERM)
    assert commands.ended(process)[0] == 75
    assert not (stopped / "points/weak-seed0/measured.json").exists()
    assert run(stopped)[0] == 0
    assert results(stopped) == results(undisturbed)
    tables = [json.loads((each / "table.json").read_text()) for each in (stopped, undisturbed)]
    assert tables[0] == tables[1]

    # A second call does nothing; a measure that changes is taken again, and no run is.
    before = {path: path.stat().st_mtime_ns for path in (stopped / "points").rglob("*")}
    status, out, _ = run(stopped)
    assert (status, "point 0" in out) == (0, False)
    after = {path: path.stat().st_mtime_ns for path in (stopped / "points").rglob("*")}
    assert after == before
    status, out, _ = run(stopped, "--config.measures.knn.eval.knn.k=5")
    assert status == 0
    assert "done: step" not in out, out
    assert out.count("knn of 6: ") == 2


@pytest.mark.slow
def test_a_point_that_fails_does_not_stop_the_other_and_is_tried_again(tmp_path, capsys):
    (tmp_path / "failing.py").write_text(
        STUDY.replace(
            "return c", f"c.points.weak.run.init = {{'run': '{tmp_path}/none'}}; return c"
        )
    )
    failing, study = tmp_path / "failing", tmp_path / "failing.py"
    status, out, err = ran(study, failing, capsys)
    assert status == 1
    assert "point 1 of 2: strong-seed0" in out
    assert err.splitlines()[-1].startswith("1 of 2 points failed: weak-seed0 (")
    table = json.loads((failing / "table.json").read_text())
    assert [*table["failed"]] == table["missing"] == ["weak-seed0"]
    status, out, _ = ran(study, failing, capsys)
    assert (status, "point 0 of 2: weak-seed0" in out, "point 1" in out) == (1, True, False)


@pytest.mark.slow
def test_two_commands_share_the_points(study, tmp_path):
    argv = ["-m", "simclr_jax.sweep", f"--config={study}", f"--workdir={tmp_path}"]
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.values["jax_compilation_cache_dir"]}
    both = [commands.start(*argv, devices=8, **cache) for _ in range(2)]
    outs = [commands.finished(process)[0] for process in both]
    for point in "point 0 of 2: weak-seed0", "point 1 of 2: strong-seed0":
        assert sum(point in out.splitlines() for out in outs) == 1
    assert len(json.loads((tmp_path / "table.json").read_text())["cells"]) == 4

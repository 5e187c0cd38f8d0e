"""The `nas` command as a user types it: real processes, their output and their exit codes."""

import inspect
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import nas
from nas import api
from nas.cli import main


def run_nas(*arguments, cwd=None, timeout=120):
    return subprocess.run(
        [sys.executable, "-m", "nas", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        check=False,
    )


def test_help_is_quick_and_names_every_command():
    done = run_nas("--help", timeout=30)
    assert done.returncode == 0
    for command in ("search", "report", "train", "evaluate", "profile", "list"):
        assert command in done.stdout


def test_help_loads_no_heavy_library():
    code = "import sys, nas.cli; print(sorted({'torch', 'ray', 'optuna', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nas", "--version"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"nas {nas.__version__}\n"
    project = tomllib.loads((Path(nas.__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert project["version"] == nas.__version__


def test_list():
    done = run_nas("list")
    assert done.returncode == 0
    for name in ("inverted_residual", "mobilenetv2-cifar", "han-e", "pydmobilenet-add-29-0.25", "kuo-se"):
        assert name in done.stdout


def test_profile_as_json():
    done = run_nas("profile", "han-e", "--json")
    document = json.loads(done.stdout)
    assert document["params"] == 889_946  # Han and Kwon, Table 3
    expected = {"name", "id", "params", "macs", "conv_macs", "conv_params", "size_bytes", "peak_activation_bytes"}
    assert expected | {"resolution", "num_classes"} <= document.keys()


def test_train_and_evaluate_agree(tmp_path):
    done = run_nas("train", "han-e", "--epochs", 2, "--recipe", "search", "--out", tmp_path / "e", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "e" / "metrics.csv").read_text().count("\n") == 3
    assert nas.load(tmp_path / "e" / "architecture.yaml").name == "han-e"
    suggested = next(line for line in done.stdout.splitlines() if "nas evaluate" in line).split()
    assert suggested == ["nas", "evaluate", str(tmp_path / "e" / "model.safetensors")]
    figures = json.loads(run_nas(*suggested[1:], "--json").stdout)
    assert (figures["validation_images"], figures["test_images"]) == (216, 359)  # an image: over 0.2 points
    printed = [f"{part} accuracy {100 * figures[f'{part}_accuracy']:.0f} %" for part in ("validation", "test")]
    assert " · ".join(printed) in done.stdout
    judged = run_nas(*suggested[1:])
    assert judged.stdout.splitlines()[0].split(": ")[1] == ", ".join(printed)
    said = done.stdout.splitlines()
    begins = next(number for number, line in enumerate(said) if line.startswith("training epoch 1 of 2: "))
    assert said[begins + 1].startswith("epoch 1/2 ")  # and nothing else between the two


TRAINING = "name: x\nstem: {channels: 8}\nstages:\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "--space", "nope"], "unknown space 'nope'"),
        (["search", "--dataset", "nope"], "unknown data set 'nope'"),
        (["search", "--objectives", "accuracy,speed"], "unknown objective 'speed'"),
        (["search", "--limit", "size<=1kB"], "no network of space inverted_residual keeps it"),
        (["search", "--limit", "size=4"], "write it as FIGURE<=VALUE"),
        (["search", "--recipe", "nope"], "nope"),
        (["search", "--sampler", "nope"], "sampler 'nope': should be 'known-cost', 'tpe', 'nsga2', 'gp' or 'random'"),
        (["search", "--resolution", "4"], "too small for the strides"),
        (["search", "--out", "/proc/nas"], "cannot be created"),
        (["search", "--resume", "nowhere"], "no run here"),
        (["search", "--resume", "nowhere", "--epochs", "3"], "epochs of a run cannot be changed; allowed: trials"),
        (["search", "--resume", "nowhere", "--limit", "size<=1MB"], "limits of a run cannot be changed"),
        (["search", "--space", "missing.yaml"], "cannot be read"),
        (["search", "--trials", "0"], "trials 0"),
        (["report", "nowhere"], "no run here"),
        (["report", "one", "two", "--format", "md"], "--format md prints one run"),
        (["report", "one", "two", "--published", "none"], "--published none is for the page of one run; leave it out"),
        (["report", "one", "--format", "csv", "--published", "all"], "--published all is for the page of one run"),
        (["search", "--confirm-epochs", "3"], "confirm-epochs 3: of no training; give --confirm N too"),
        (
            ["data", "digits", "--augment", "photo"],
            "--augment photo is for the page's images; give --out PAGE.html",
        ),
        (
            ["export", "nope.pt", "--dataset", "digits"],
            "are for the calibration of int8; leave them out",
        ),
        (["train", "nope"], "unknown network 'nope'"),
        (["train", "han-e", "--device", "cuda:9"], "cuda"),
        (["train", "han-e", "--dataset", "imagefolder:nowhere"], "nowhere"),
        (["train", "han-e", "--dataset", "cifar10", "--data-dir", "empty"], "cifar"),
        (["evaluate", "nowhere.pt"], "cannot be read"),
        (["profile", "han-e", "--num-classes", "0"], "num-classes 0: at least 1 is needed"),
        (["profile", "space.yaml"], "space.yaml: stages[0].expansion"),
        (["profile", "tag.yaml"], "tag.yaml: not plain YAML in line 1"),
        (["profile", "cycle.yaml"], "contains itself"),
        (["profile", "even.yaml"], "even.yaml: stages[0].kernels[0]: kernel 4 is even"),
        (["profile", "field.yaml"], "did you mean 'expansion'?"),
        (["profile", "type.yaml"], "type.yaml: stages[0].channels"),
        (["train", "huge.yaml"], "over the memory: training needs"),
        (["latency", "calibrate", "--networks", "0", "--out", "x.json"], "networks 0: at least 1 is needed"),
        (["latency", "calibrate", "--out", "/proc/nas/x.json"], "/proc/nas: cannot be created"),
        (["search", "--space", "empty.yaml"], "a choice needs a list of at least one option"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    block = "block: inverted_residual, channels: 8"
    files = {
        "space.yaml": f"{TRAINING}  - {{{block}, expansion: {{choice: [1, 2]}}}}\n",
        "empty.yaml": f"{TRAINING}  - {{{block}, expansion: {{choice: []}}}}\n",
        "even.yaml": f"{TRAINING}  - {{{block}, kernels: [4]}}\n",
        "field.yaml": f"{TRAINING}  - {{{block}, expantion: 4}}\n",
        "type.yaml": f"{TRAINING}  - {{block: inverted_residual, channels: eight}}\n",
        "huge.yaml": f"{TRAINING}  - {{block: conv, channels: 65536, repeats: 8}}\n",
        "tag.yaml": "!!python/object/apply:os.system ['true']\n",
        "cycle.yaml": "&a {name: *a}\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    # The entry point itself, in this process: a process of its own would load torch and Ray each time.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nas", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err + printed.out
    assert sorted(tmp_path.rglob("*")) == before


def test_every_option_of_a_search_reaches_it(monkeypatch, tmp_path):
    known = set(inspect.signature(api.search).parameters) - {"progress"}  # the command shows its own
    recorded = json.loads(Path(__file__).with_name("commands.json").read_text())["nas search"]["parameters"]
    argv = ["nas", "search", "--limit", "params<=1M", "--out", str(tmp_path)]
    for option, item in recorded.items():
        if option not in ("--resume", "--out"):
            value = {"int": "7", "float": "0.5"}.get(item["type"], "a,b")
            argv += [option] if item["type"] == "bool" else [option, value]
    given = {}

    def search(**options):
        given.update(options)
        raise nas.UserError("enough")

    monkeypatch.setattr(api, "search_devices", search)
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit):
        main()
    assert set(given) == known
    assert (given["space"], given["trials"], given["report_every"], given["out"]) == ("a,b", 7, 0.5, tmp_path)
    assert (given["objectives"], given["limits"]) == (("a", "b"), ("params<=1M", "a,b"))
    assert given["enqueue"] == ("a,b",)
    assert (given["resources"].cpus_per_trial, given["resources"].gpus_per_trial) == (7, 0.5)


def test_debug_shows_the_traceback(tmp_path):
    done = run_nas("--debug", "profile", "nope", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_folder_that_holds_another_run_is_left_alone(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"schema": 99}))
    done = run_nas("search", "--out", tmp_path)
    assert done.returncode == 2
    assert "use a newer nas" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_every_shipped_document_is_in_the_package():
    folder = Path(nas.__file__).parent.parent / "search_spaces"
    assert {path.stem for path in (folder / "published").glob("*.yaml")} >= {"han-e", "mobilenetv2", "kuo-se"}

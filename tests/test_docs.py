"""README and docs say what is true: their snippets run, their commands parse, their tables match the code."""

import ast
import inspect
import re
import shlex
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import runs
import typer
import yaml

import nas
from nas import api
from nas.architecture import SCHEMA as DOCUMENT_SCHEMA
from nas.architecture import Architecture
from nas.cli import app
from nas.cost.analytic import cost
from nas.cost.latency import Provenance
from nas.cost.latency.table import SCHEMA as TABLE_SCHEMA
from nas.cost.latency.table import HeldOut
from nas.cost.profile import profile
from nas.export import Card
from nas.files import MAX_BYTES, MAX_DEPTH, MAX_NODES
from nas.search.run import COLUMNS, STATES, Run
from nas.search.run_file import read_run_file
from nas.search.settings import SCHEMA, Settings
from nas.search.stopping import FEWEST_STEPS, first_rung, rungs
from nas.space import MAX_COMBINATIONS
from nas.stages import BLOCK_KINDS, AnyStage, Head, Input, Stem
from nas.training.checkpoint import Checkpoint, save_checkpoint
from nas.training.loop import Epoch
from nas.training.recipe import RECIPES, Recipe
from nas.training.ship import FORMS

ROOT = Path(__file__).parent.parent
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
SPACE, METHOD, FILES = PAGES["docs/space.md"], PAGES["docs/method.md"], PAGES["docs/files.md"]
NOT_RUN = re.compile(r"<!-- not run: [^>]+ -->\s*$")

SMALL = {
    "name": "small",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 8},
    "stages": [{"block": "inverted_residual", "channels": 8, "expansion": {"choice": [1, 2, 3, 4]}}],
}


class Snippet(NamedTuple):
    page: str
    line: int
    language: str
    code: str
    runs: bool


def snippets(page: str) -> list[Snippet]:
    text = PAGES[page]
    return [
        Snippet(
            page, text[: match.start(2)].count("\n") + 1, match[1], match[2], not NOT_RUN.search(text[: match.start()])
        )
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    ]


def prose(page: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.S | re.M)


def inline_code(page: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def section(text: str, heading: str) -> str:
    """What stands between a heading and the next one."""
    match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.S | re.M)
    assert match, f"no section {heading}"
    return match[1]


def table(text: str, first_column: str) -> list[dict[str, str]]:
    """The rows of the table whose first column is called that, by column."""
    lines = iter(text.splitlines())
    header: list[str] = []
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            header = cells(line)
            next(lines)
            break
    assert header, f"no table of {first_column}"
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(header, cells(line), strict=True)))
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def named(rows: list[dict[str, str]], column: str) -> list[str]:
    """What a column names in code, several to a cell or one."""
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[column])]


def written_default(cell: str) -> Any:
    return "" if cell == "empty" else yaml.safe_load(cell.strip("`"))


def plain_default(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump() if isinstance(value, Input) else value.without_defaults()
    return list(value) if isinstance(value, tuple) else value


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the snippets read: a run, a training, and the YAML of the pages. Accuracies are invented."""
    folder = tmp_path_factory.mktemp("docs")
    for snippet in (snippet for page in PAGES for snippet in snippets(page) if snippet.language == "yaml"):
        (folder / f"{yaml.safe_load(snippet.code)['name']}.yaml").write_text(snippet.code)
    invented_run(folder / "results" / "first")
    small = nas.Space(SMALL).sample(0)
    nas.train(small, recipe="search", epochs=3, train_size=60, out=folder / "results" / "best")
    return folder


def invented_run(out: Path) -> None:
    settings = Settings(space=SMALL, objectives=("accuracy", "size"), recipe=Recipe(epochs=1).to_dict(), trials=3)
    search = runs.begin(out, settings)
    for accuracy in (0.5, 0.7, 0.6):
        candidate = search.propose()
        assert candidate is not None
        search.record_epoch(candidate.number, runs.epoch(1, accuracy))
        search.complete(candidate.number)
        weights = runs.checkpoint_of(candidate.architecture, settings, epochs=1, accuracy=accuracy)
        save_checkpoint(out / "checkpoints" / f"{candidate.number}.pt", weights)
    Run.open(out).write_tables()


# Snippets


@pytest.mark.parametrize(
    "snippet",
    [snippet for page in PAGES for snippet in snippets(page) if snippet.language == "yaml"],
    ids=lambda snippet: f"{snippet.page}:{snippet.line}",
)
def test_yaml_is_a_space(snippet: Snippet) -> None:
    space = nas.Space(yaml.safe_load(snippet.code), snippet.page)
    assert space.contains(space.sample(0))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(snippet.language == "python" for snippet in snippets(page))]
)
def test_python_runs(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a page, one after the other, in one namespace; a search is checked for its arguments and not run."""
    monkeypatch.chdir(workplace)

    def search(*arguments: Any, **options: Any) -> Run:
        inspect.signature(api.search).bind(*arguments, **options)
        return nas.open_run("results/first")

    monkeypatch.setattr(nas, "search", search, raising=False)
    namespace: dict[str, Any] = {}
    for snippet in (snippet for snippet in snippets(page) if snippet.language == "python"):
        code = "\n" * (snippet.line - 1) + snippet.code
        if snippet.runs:
            exec(compile(code, str(ROOT / page), "exec"), namespace)
        else:
            check_without_running(code, str(ROOT / page))


def check_without_running(code: str, name: str) -> None:
    """What is imported is there, and what was imported is called with arguments that it takes."""
    tree = ast.parse(code, name)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    namespace: dict[str, Any] = {}
    exec(compile(ast.Module(imports, []), name, "exec"), namespace)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Name) and call.func.id in namespace:
            keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            inspect.signature(namespace[call.func.id]).bind(*call.args, **keywords)


# Commands


COMMAND: Any = typer.main.get_command(app)


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and the words that are left for it."""
    command = COMMAND
    while hasattr(command, "commands"):
        assert words, "no command"
        if command.name == "latency" and words[0] not in command.commands:
            words = ["measure", *words]  # as the command itself does
        assert words[0] in command.commands, f"no command {words[0]!r}; there are {', '.join(command.commands)}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def all_options(command: Any = COMMAND) -> set[str]:
    inner = [all_options(sub) for sub in getattr(command, "commands", {}).values()]
    return options_of(command).union(*inner, {"--debug", "--help"})


def shell_commands(page: str) -> list[list[str]]:
    """The words behind each `nas` of the page's shell blocks."""
    found = []
    for snippet in snippets(page):
        if snippet.language not in ("sh", "bash", "shell", "console"):
            continue
        for line in snippet.code.replace("\\\n", " ").splitlines():
            words: list[str] = []
            for word in [*shlex.split(line.removeprefix("$ "), comments=True), ";"]:
                if word in ("&&", "||", "|", ";"):
                    if words[:1] == ["nas"]:
                        found.append(words[1:])
                    words = []
                else:
                    words.append(word)
    return found


SHELL = [pytest.param(words, id=f"{page}: nas {' '.join(words)}") for page in PAGES for words in shell_commands(page)]
INLINE = [
    pytest.param(code, id=f"{page}: {code}")
    for page in PAGES
    for code in dict.fromkeys(inline_code(page))
    if re.match(r"nas [a-z]", code)
]


def test_the_readme_has_commands() -> None:
    assert len(shell_commands("README.md")) > 5


@pytest.mark.parametrize("words", SHELL)
def test_command_parses(words: list[str]) -> None:
    command, rest = find_command([word for word in words if word != "--debug"])
    command.make_context(command.name, rest)  # parses, and raises what the user would see; runs nothing


@pytest.mark.parametrize("code", INLINE)
def test_command_in_a_sentence(code: str) -> None:
    """It may lack arguments, but what it names exists."""
    command, rest = find_command(shlex.split(code)[1:])
    known = options_of(command) | {"--help", "--debug"}
    for word in rest:
        assert not word.startswith("--") or word.partition("=")[0] in known


@pytest.mark.parametrize("page", PAGES)
def test_options_in_sentences(page: str) -> None:
    mentioned = {code.split()[0].partition("=")[0] for code in inline_code(page) if code.startswith("--")}
    assert mentioned <= all_options()


# Links


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINKS = [
    pytest.param(page, link, id=f"{page}: {link}")
    for page in PAGES
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page))
    if not re.match(r"[a-z]+:", link)
]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_link_resolves(page: str, link: str) -> None:
    file, _, anchor = link.partition("#")
    target = (ROOT / page).parent / file if file else ROOT / page
    assert target.exists()
    assert not anchor or anchor in anchors(target)


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_sentences_exist(page: str) -> None:
    ours = re.compile(r"(nas|benchmarks|tests|docs|search_spaces|results/(published|benchmarks)|\.ci)/[\w./-]*")
    named_paths = [code for code in inline_code(page) if ours.fullmatch(code)]
    assert [path for path in named_paths if not (ROOT / path).exists()] == []


# docs/space.md


PARTS = {"The whole": Architecture, "`input`": Input, "`stem`": Stem, "`head`": Head}
STAGES = {model.model_fields["block"].annotation.__args__[0]: model for model in AnyStage.__args__}  # type: ignore[union-attr]


def bounds(schema: Any) -> set[str]:
    """All numbers and names that a field's JSON schema allows or ends at."""
    keys = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "gt", "ge", "lt", "le"}
    keys |= {"minItems", "maxItems", "minLength", "maxLength"}
    found: set[str] = set()
    if isinstance(schema, dict):
        found |= {f"{value:g}" for key, value in schema.items() if key in keys and key != "minLength"}
        found |= {str(value) for value in schema.get("enum", [])}
        found |= {"true", "false"} if schema.get("type") == "boolean" else set()
        for key in ("anyOf", "items"):
            found |= bounds(schema.get(key))
    elif isinstance(schema, list):
        found = set().union(*map(bounds, schema))
    return found


def check_row(row: dict[str, str], field: str, model: Any) -> None:
    info = model.model_fields[field]
    if row["default"] == "required":
        assert info.is_required(), field
    else:
        assert written_default(row["default"]) == plain_default(info.default), field
    said = set(re.findall(r"[\w.]+", row["values"]))
    assert bounds(model.model_json_schema()["properties"][field]) <= said, field


@pytest.mark.parametrize(("heading", "model"), PARTS.items())
def test_parts_are_documented(heading: str, model: Any) -> None:
    rows = table(section(SPACE, heading), "field")
    assert named(rows, "field") == list(model.model_fields)
    for row in rows:
        check_row(row, row["field"].strip("`"), model)


@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_stages_are_documented(kind: str) -> None:
    def applies(row: dict[str, str]) -> bool:
        of = row["of"]
        return of == "all" or (of.startswith("all but") and kind not in of) or kind in of.split(", ")

    model = STAGES[kind]
    rows = {row["field"].strip("`"): row for row in table(section(SPACE, "Stages"), "field") if applies(row)}
    assert rows.keys() == model.model_fields.keys()
    for field, row in rows.items():
        if field != "block":
            check_row(row, field, model)


def test_every_kind_is_described() -> None:
    assert tuple(named(table(section(SPACE, "Stages"), "kind"), "kind")) == BLOCK_KINDS == tuple(STAGES)


def test_shortcuts_are_those_of_the_code() -> None:
    words = {"none": "none", "identity": "identity", "1x1 convolution with norm": "conv"}
    words["strided 1x1 convolution with norm"] = "conv"
    rows = table(section(SPACE, "Shortcuts"), "rule")
    assert named(rows, "rule") == ["none", "identity", "conv", "conv_strided"]
    for row in rows:
        rule = re.findall(r"`(\w+)`", row["rule"])[0]
        stage = STAGES["inverted_residual"](block="inverted_residual", channels=8, shortcut=rule)
        assert words[row["nothing"]] == stage.block_shortcut(8, 8, 1)
        assert words[row["channels alone"]] == stage.block_shortcut(8, 16, 1)
        for channels in (8, 16):
            assert words[row["the size (stride above 1)"]] == stage.block_shortcut(8, channels, 2)


def test_limits_on_documents() -> None:
    text = section(SPACE, "Limits on documents")
    for number in (f"{MAX_BYTES:,}", f"{MAX_DEPTH} levels", f"{MAX_NODES:,}"):
        assert number in text
    assert f"{MAX_COMBINATIONS:,}" in SPACE


# docs/method.md


def test_figures_are_those_of_the_benchmarks() -> None:
    quoted = [snippet for snippet in snippets("docs/method.md") if snippet.language == "text"]
    assert quoted
    printed = (ROOT / "results" / "benchmarks" / "search_quality.txt").read_text()
    for snippet in quoted:
        blocks = [block.splitlines() for block in snippet.code.strip().split("\n\n")]
        for name, *lines in blocks:
            own = printed[printed.index(f"{name}: ") :]
            for line in lines:
                assert line in own.split("wrote")[0], line


def test_docstrings_are_quoted_as_they_stand() -> None:
    quotes = re.findall(r"\"([^\"]+)\"\s*(?:\([^)]*\)\"?)?:?\s*docstring\s+in\s+`([^`]+)`", prose("docs/method.md"))
    assert len(quotes) == 2
    for quote, file in quotes:
        assert flat(quote).lower() in flat((ROOT / file).read_text()).lower()


def flat(text: str) -> str:
    return " ".join(text.split())


def test_numbers_of_the_method() -> None:
    from nas.cost.latency import calibration, fitting, measuring, summary, timing
    from nas.cost.latency.cache import BUDGET_SECONDS
    from nas.search.conductor import Conductor
    from nas.search.sampler import KnownCostSampler
    from nas.search.sampler.prediction import _MODEL_POINTS
    from nas.training.data import _VALIDATION_FLOOR

    defaults = {name: item.default for name, item in inspect.signature(KnownCostSampler).parameters.items()}
    text = flat(METHOD)
    assert "Until eight trials" in text and defaults["startup_trials"] == 8
    assert f"at most {_MODEL_POINTS} trials" in text
    assert "Five broken ones in a row" in text and inspect.signature(Conductor).parameters["max_failures"].default == 5
    assert "at least ten rounds" in text and measuring.ROUNDS == 10
    assert "eight runs to warm up and five that are timed" in text and (timing.WARM_UP_RUNS, measuring.RUNS) == (8, 5)
    assert f"up to {measuring.GROUP} together" in text and f"groups of {calibration.GROUP}" in text
    assert f"the {timing.QUANTILE:.0%} quantile" in text and summary.FEWEST == 5 and "fewer than five visits" in text
    assert f"wider than {summary.WIDEST:.0%}" in text
    assert "count three times as much (eight times" in text
    assert (fitting.WHOLE_WEIGHT, calibration.WHOLE_WEIGHTS["onnxruntime"]) == (3, 8)
    assert f"the first {calibration.GROUP} networks are timed in any case" in text
    assert f"up to {calibration.NETWORKS} networks" in text and f"about {BUDGET_SECONDS:g} seconds" in text
    assert f"{Settings(space={}).validation_fraction:.0%} of them" in text and f"below {_VALIDATION_FLOOR:,}" in text
    search = RECIPES["search"]
    assert rungs(search.epochs, first_rung(63)) == (1, 2, 4)
    assert f"at least {FEWEST_STEPS} steps" in text


def test_counts_are_described() -> None:
    described = named(table(section(METHOD, "Counts"), "figure"), "figure")
    assert set(described) == set(cost(nas.load("han-e"))._fields)
    assert "own_macs" in profile(nas.load("han-e"))["thop"]


# docs/files.md


def check_defaults(rows: list[dict[str, str]], first: str, model: Any) -> None:
    assert named(rows, first) == [item.name for item in fields(model)]
    for row, item in zip(rows, fields(model), strict=True):
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if row["default"] == "required":
            assert default is MISSING, item.name
        else:
            assert written_default(row["default"]) == plain_default(default), item.name


def test_settings_are_documented() -> None:
    check_defaults(table(FILES, "setting"), "setting", Settings)


def test_recipes_are_documented() -> None:
    check_defaults(table(FILES, "recipe field"), "recipe field", Recipe)
    assert all(f"`{name}`" in FILES for name in RECIPES)


def test_tables_are_documented() -> None:
    assert tuple(named(table(FILES, "column"), "column")) == COLUMNS
    metrics = named(table(FILES, "column of `metrics.csv`"), "column of `metrics.csv`")
    assert metrics == [item.name for item in fields(Epoch)]
    assert all(f"`{state}`" in FILES for state in STATES.values())
    states = [row["state"] for row in table(FILES, "state")]
    assert set(states) == {state.name for state in STATES}


def test_run_file_is_documented(workplace: Path) -> None:
    document = read_run_file(workplace / "results" / "first")
    section_text = section(FILES, "`run.yaml`")
    assert [row["field"].strip("`") for row in table(section_text, "field")] == list(document)
    assert all(f"`{key}`" in section_text for key in document["environment"])


def test_study_attributes_are_documented(workplace: Path) -> None:
    run = Run.open(workplace / "results" / "first")
    text = section(FILES, "Study")
    for trial in run.study.trials:
        for name, value in trial.user_attrs.items():
            assert f"`{name}`" in text
            if name.startswith("epoch:"):
                assert all(f"`{key}`" in text for key in value)
    source = (ROOT / "nas" / "search" / "study.py").read_text()
    for name in re.findall(r"set_user_attr\(\s*\"(\w+)\"", source):
        assert f"`{name}`" in text


def test_checkpoints_are_documented() -> None:
    rows = table(section(FILES, "Checkpoints"), "key")
    assert [row["key"].strip("`") for row in rows] == [item.name for item in fields(Checkpoint)]


def test_latency_table_is_documented() -> None:
    text = section(FILES, "`latency.json`")
    for item in (*fields(Provenance), *fields(HeldOut)):
        assert f"`{item.name}`" in text


def test_training_folder_is_documented(workplace: Path) -> None:
    folder = workplace / "results" / "best"
    rows = table(section(FILES, "A training"), "file")
    listed = {row["file"].strip("`").rstrip("/") for row in rows}
    assert {path.name for path in folder.iterdir()} <= listed
    description = next(row["what it is"] for row in rows if row["file"] == "`train.yaml`")
    assert all(f"`{key}`" in description for key in yaml.safe_load((folder / "train.yaml").read_text()))


def test_exported_metadata_are_documented() -> None:
    text = section(FILES, "Exported models")
    card = Card(nas.load("han-e"), classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert all(f"`{key}`" in text for key in card.to_metadata())
    assert tuple(named(table(text, "format"), "format")) == FORMS


def test_versions_are_documented() -> None:
    numbers = {row["file"].strip("`"): row["number"] for row in table(section(FILES, "Versions"), "file")}
    assert numbers["run.yaml"] == f"`schema` {SCHEMA}"
    assert numbers["latency.json"] == f"`schema` {TABLE_SCHEMA}"
    assert numbers["architecture and space documents"] == f"`schema` {DOCUMENT_SCHEMA}"


def test_limits_in_the_study() -> None:
    from nas.search.objectives import parse_limit

    limit = parse_limit("size<=1MB")
    assert str(limit) == "size<=1MB" and limit.excess({"size": 2e6}) == 1.0  # as the page says

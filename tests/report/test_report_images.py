"""The report's sections on images: what they are like, and what a network takes for what."""

import json
import re

import pytest
import torch
from studies import invented_run

from nas.driver.run import Run
from nas.errors import UserError
from nas.report.images import confusion_figure, judgement_section
from nas.report.page import render_page
from nas.report.summary import render
from nas.training.data import load_dataset
from nas.training.evaluate import scores
from nas.training.facts import describe, summarise
from nas.training.images import Images
from nas.training.per_class import judge, with_pictures
from nas.training.pictures import samples
from nas.training.recipe import Recipe

NAMES = ("zero <b>", *"123456789")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Run]:
    """A run's report without the files on images, and with them; every image that is a 3 is taken for an 8."""
    run = invented_run(tmp_path_factory.mktemp("runs") / "run", trials=12, epochs=2)
    before = render_page(run)
    digits = load_dataset("digits")
    drawn = samples(digits, Recipe())
    document = describe(digits)
    document["classes"][0]["name"], drawn[NAMES[0]] = NAMES[0], drawn.pop("0")
    run.path.mkdir(exist_ok=True)
    (run.path / "data.json").write_text(json.dumps(summarise(document, drawn)))
    labels = digits.test.labels
    found = scores(labels, torch.where(labels == 3, 8, labels), torch.linspace(0, 1, len(labels)))
    judgement = with_pictures(judge(digits.test, found, NAMES), digits.test)
    file = run.judgement_file(run.front_records[0].number)
    file.parent.mkdir()
    file.write_text(json.dumps(judgement))
    return before, render_page(run), run


def test_a_run_without_the_files_has_no_such_sections(pages: tuple[str, str, Run]) -> None:
    assert 'id="mistakes"' not in pages[0] and 'id="images"' not in pages[0]
    assert 'id="mistakes"' in pages[1] and 'href="#mistakes"' in pages[1] and 'id="images"' in pages[1]


def test_the_sections_say_what_is_known_and_stay_small(pages: tuple[str, str, Run]) -> None:
    before, after, _ = pages
    body = re.sub(r"<script.*?</script>", "", after, flags=re.DOTALL)
    assert len(after) - len(before) < 200_000
    assert body.count('src="data:image/jpeg') == 10 + 12
    assert "zero <b>" not in body and "zero &lt;b&gt;" in body
    cells = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>.*?</tr>", body, re.DOTALL)]
    assert ["3", "37", "0", "%", "–"] in cells  # of 37 images none is found, and nothing is taken for a 3
    assert any(cell[:4] == ["8", "35", "100", "%"] and cell[4] == "49" for cell in cells)  # 35 of 72
    figures = json.loads(re.search(r'id="data">(.*?)</script>', after, re.DOTALL)[1])["figures"]
    counts = figures["confusion_test"]["data"][0]["customdata"]
    assert counts[3][8] == 37 and counts[3][3] == 0


def test_printed_as_json_the_front_has_its_test_images_class_by_class(pages: tuple[str, str, Run]) -> None:
    first, second, *_ = json.loads(render(pages[2], "json"))["front"]
    assert [item["name"] for item in first["test_classes"]] == list(NAMES)
    assert first["test_classes"][3] == {"name": NAMES[3], "images": 37, "recall": 0.0, "precision": None}
    assert second["test_classes"] is None  # it was not judged


def test_of_very_many_classes_those_of_the_most_mistakes_are_shown() -> None:
    labels = torch.arange(200).repeat_interleave(3)
    predicted = labels.clone()
    predicted[labels == 150] = 7
    images = Images(torch.zeros(600, 1, 2, 2, dtype=torch.uint8), labels)
    judgement = judge(images, scores(labels, predicted, torch.ones(600)), tuple(map(str, range(200))))
    section, figure = judgement_section(judgement), confusion_figure(judgement)
    names = [item["name"] for item in section["classes"]]
    assert len(names) == 60 and {"7", "150"} <= set(names) and section["all_classes"] == 200
    trace = figure["data"][0]
    assert trace["x"] == trace["y"] == names
    assert trace["z"][names.index("150")][names.index("7")] == 1


def test_a_damaged_file_is_named(pages: tuple[str, str, Run]) -> None:
    file = pages[2].path / "data.json"
    text = file.read_text()
    try:
        for damaged in (text[:50], text.replace("data:image/jpeg;base64,", "https://example.org/", 1)):
            file.write_text(damaged)
            with pytest.raises(UserError, match=r"data\.json: damaged"):
                render_page(pages[2])
    finally:
        file.write_text(text)

"""The tables promise by release and defect by release, and what is kept of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from support.judge.verdict import VERDICTS, Verdict
from support.run import survey

MOVES, REFUSES = "Answers move", "Too much is refused"


def verdict(feature: str, said: str, *defects: str) -> Verdict:
    return Verdict(feature, "a scenario", "features/a.feature:1", [], said, 1.0, known_defects=list(defects))


OLD = survey.result(
    [verdict(MOVES, "passed"), verdict(MOVES, "known_defect", "lost-token"), verdict(REFUSES, "skipped")],
    "2026-11-01",
    "local",
)
NEW = survey.result(
    [verdict(MOVES, "passed"), verdict(MOVES, "passed"), verdict(REFUSES, "failed")], "2026-11-02", "local"
)


def test_each_release_is_a_column_and_each_promise_a_row() -> None:
    text = survey.tables({"1.10.0": NEW, "1.9.1": OLD})
    assert text == (
        "| promise | 1.9.1 | 1.10.0 |\n"
        "| --- | --- | --- |\n"
        "| Answers move | 1 kept, 1 broken | 2 kept |\n"
        "| Too much is refused | 1 skipped | 1 FAILED |\n"
        "| day of the run | 2026-11-01 | 2026-11-02 |\n"
        "\n"
        "| defect, by scenarios | 1.9.1 | 1.10.0 |\n"
        "| --- | --- | --- |\n"
        "| `lost-token` | 1 |  |\n"
    )


def test_every_verdict_has_a_word() -> None:
    assert set(survey.WORDS) == set(VERDICTS)


def test_a_release_that_runs_again_takes_the_place_of_its_own_result_only(tmp_path: Path) -> None:
    file, page = tmp_path / "results.json", tmp_path / "page.md"
    page.write_text(f"before\n{survey.BEGIN}old\n{survey.END}after\n")
    survey.write({"1.9.1": OLD, "1.10.0": NEW}, file, page)
    again = replace(NEW, date="2026-11-03")
    survey.write(survey.read(file) | {"1.10.0": again}, file, page)
    assert survey.read(file) == {"1.9.1": OLD, "1.10.0": again}
    tables = survey.tables({"1.9.1": OLD, "1.10.0": again})
    assert page.read_text() == f"before\n{survey.BEGIN}\n{tables}\n{survey.END}after\n"


def test_a_page_without_a_place_for_them_is_not_touched(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("all mine\n")
    with pytest.raises(ValueError, match="put them back"):
        survey.write({"1.9.1": OLD}, tmp_path / "results.json", page)
    assert page.read_text() == "all mine\n"
    assert not (tmp_path / "results.json").exists()


def test_an_unknown_release_is_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert survey.main(["1.4.2", "0.9"]) == 2
    assert "unknown Dynamo release '0.9'; known: 1.0.2, " in capsys.readouterr().err


def test_the_last_release_of_each_line_is_looked_at() -> None:
    assert survey.newest_of_each_line() == ["1.0.2", "1.1.1", "1.2.1", "1.3.1", "1.4.2", "1.5.1", "1.6.1"]


def test_the_page_shows_what_is_kept_and_nothing_red() -> None:
    results = survey.read()
    assert survey.tables(results) in survey.PAGE.read_text()
    assert set(results) <= set(survey.newest_of_each_line())
    bad = {release: each.promises for release, each in results.items() if _red(each)}
    assert bad == {}


def _red(result: survey.Result) -> bool:
    return any(counts.get(said) for counts in result.promises.values() for said in VERDICTS if said not in survey.GOOD)

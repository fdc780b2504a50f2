"""What is kept and told of an output: no key and no value of a feature."""

from pathlib import Path

import pytest

from coeval.settings import Settings
from coeval_pipelines.coordination.erasure import forget_outputs
from coeval_pipelines.schedule.book import DONE, ERROR, FAILED
from coeval_pipelines.schedule.runner import last_words

SECRET = "march: card_id=4715 event_timestamp=2026-11-20 card_spend__sum_1h: kept 15.10, again 15.20"
VERDICT = "rebuild failed: 1 training sets: 1 unexplained"
SAID = "coeval: CHECK_FAILED: Rebuild: march is unexplained."


@pytest.mark.parametrize(
    ("lines", "command", "outcome", "words"),
    [
        (
            [SECRET, VERDICT, SAID, "  -> See the runbook."],
            "parity rebuild",
            FAILED,
            [VERDICT, SAID, "  -> See the runbook."],
        ),
        ([SECRET, VERDICT, SAID], "parity rebuild --values", FAILED, [VERDICT, SAID]),
        # JSON is still in its buffer when the error is printed.
        ([SAID, "  -> Look.", '"kept": "15.10"', "}"], "parity rebuild --json", FAILED, [SAID, "  -> Look."]),
        (["parity: report /home/p.html", SECRET], "parity run", FAILED, ["parity: report /home/p.html"]),
        (["coeval: card_id=1 label: kept a, again report 7", SAID], "parity run --values", FAILED, [SAID]),
        (["Traceback", "ValueError: 4715"], "log ingest", ERROR, []),
        (["payments: 300 new"], "log ingest", DONE, ["payments: 300 new"]),
        ([SECRET, "rebuild passed: 1 explained"], "parity rebuild --values", DONE, ["rebuild passed: 1 explained"]),
    ],
)
def test_last_words_carry_no_single_value(lines: list[str], command: str, outcome: str, words: list[str]) -> None:
    assert last_words(lines, command.split(), outcome) == words


def test_of_many_words_the_last_are_kept() -> None:
    assert last_words([str(n) for n in range(20)], ["materialize"], DONE) == [str(n) for n in range(12, 20)]


def test_an_erasure_empties_the_outputs_of_jobs_and_deletes_every_page(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    log = tmp_path / "local" / "schedule" / "rebuild-1.log"
    log.parent.mkdir(parents=True)
    with log.open("ab", buffering=0) as running:
        running.write(SECRET.encode())
        forget_outputs(settings)
        running.write(b"after")
    assert log.read_bytes() == b"after"
    folder = tmp_path / "reports"
    folder.mkdir()
    names = (
        "replay.html",
        "parity.html",
        "parity-12.html",
        ".parity-12.html.4711",
        "parity-12.html.4711.partial",
        "replay.html.4711.partial",
        "drift.html",
    )
    for name in names:
        (folder / name).write_text(SECRET)
    forget_outputs(settings)
    assert [path.name for path in folder.iterdir()] == ["drift.html"]

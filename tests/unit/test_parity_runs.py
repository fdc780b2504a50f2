"""Parity runs in the control plane: the documents of the newest are kept, the verdicts of all."""

from contextlib import closing
from pathlib import Path

from coeval.settings import Settings
from coeval_pipelines.control import ControlPlane, ParityCheck
from coeval_pipelines.control.parity import KEPT_RUNS, ParityBook

CHECK = ParityCheck("card_spend", "3f2a91bc", 7, 10, 20, 20, {})


def test_documents_of_the_newest_runs_are_kept_and_what_all_said_of_each_view(tmp_path: Path) -> None:
    with closing(ControlPlane.open(Settings(home=tmp_path))) as control:
        for at in range(KEPT_RUNS + 3):
            run = ParityBook(control).record(at, "hash", True, {"at": at}, [CHECK])
        kept = [number for number in range(1, run + 1) if ParityBook(control).run(number)]
        assert kept == [*range(run - KEPT_RUNS + 1, run + 1)]
        assert ParityBook(control).run() == (run, {"at": KEPT_RUNS + 2})
        assert len(ParityBook(control).checks("card_spend", limit=1000)) == run == KEPT_RUNS + 3


def test_single_differences_are_forgotten_in_every_run_that_is_kept(tmp_path: Path) -> None:
    other = {"view": "other", "key": "i1"}
    with closing(ControlPlane.open(Settings(home=tmp_path))) as control:
        for found in ([{"view": "card_spend", "key": "i3"}, other], [other], [{"view": "card_spend", "key": "i4"}]):
            ParityBook(control).record(1, "hash", False, {"mismatches": found})
        assert ParityBook(control).forget_differences({"card_spend"}) == 2
        assert [ParityBook(control).run(run) for run in (1, 2, 3)] == [
            (1, {"mismatches": [other], "omitted": 1}),
            (2, {"mismatches": [other]}),
            (3, {"mismatches": [], "omitted": 1}),
        ]

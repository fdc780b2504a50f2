"""The oracle itself: what it says is the contract; the written cases say whether the contract is what was meant."""

from __future__ import annotations

from collections.abc import Sequence

from coeval.spec.records import Event
from tests.support.contract.cases import Case
from tests.support.contract.compare import Answers, everything, truth


class Reference:
    """`coeval.reference`."""

    name = "reference"

    def takes(self, case: Case) -> bool:
        return True

    def counts(self, case: Case, event: Event, hop: int) -> bool:
        return everything(case, event, hop)

    def answers(self, cases: Sequence[Case]) -> list[Answers]:
        return [truth(case) for case in cases]

"""Count: from a view's comparisons and verdicts to its line in the result. Pure."""

from __future__ import annotations

from collections import Counter

from coeval.spec.model import Field, budgets
from coeval_parity.compare import Comparison, Outcome
from coeval_parity.describe import aggregate_of
from coeval_parity.evidence import Delivery
from coeval_parity.judge import Judged
from coeval_parity.result import Cause, FeatureParity, ViewParity
from coeval_parity.screen import Screened


def tally(screened: Screened, judged: Judged, delivery: Delivery) -> ViewParity:
    """The result of one view."""
    view = screened.look.view
    return ViewParity(
        view=view.name,
        version=view.version,
        ready=screened.served.ready and judged.ready,
        keys=len(screened.served.keys),
        keys_online=screened.keys_online,
        features=tuple(_feature(screened, judged, field) for field in view.features),
        freshness=view.sla.freshness,
        since=delivery.since,
        load_cut=delivery.load_cut,
        certified=delivery.certified,
        source=view.source,
    )


def _feature(screened: Screened, judged: Judged, field: Field) -> FeatureParity:
    view, name = screened.look.view, field.name
    comparison: Comparison = screened.comparisons[name]
    aggregate = aggregate_of(view, name)
    compared = comparison.outcome >= 0
    differing = judged.causes.get(name, Counter())
    causes: Counter[Cause] = Counter()
    for (_, cause), count in differing.items():
        causes[cause] += count
    # Of a view that turned out not to be ready, no value counts as read.
    equal = comparison.count(Outcome.MATCH) + judged.settled[name] if judged.ready else 0
    near = comparison.count(Outcome.WITHIN_TOLERANCE) + judged.within[name] if judged.ready else 0
    return FeatureParity(
        view=view.name,
        feature=name,
        label=aggregate.label if aggregate else f"latest {name}",
        compared=int(compared.sum()),
        matched=equal,
        within_tolerance=near,
        causes=dict(causes),
        symptoms=dict(judged.symptoms.get(name, {})),
        suspects=dict(judged.suspects.get(name, {})),
        null_online=int((screened.served.columns[name].null & compared).sum()),
        null_offline=int((screened.expected[name].null & compared).sum()),
        largest_difference=float(comparison.difference.max(initial=0.0)),
        smape=comparison.smape,
        hours=screened.hours.series(compared, differing),
        budgets=budgets(view, name),
    )

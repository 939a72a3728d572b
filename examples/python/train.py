"""Train a credit-score model on a training set that `hearth dataset build loans` wrote.

    python train.py ../credit_scoring/out/loans model.json

The folder holds Parquet files and a manifest.json that says which they are, what went into
them and what was found out about them. This script believes the manifest only after
looking: no row may know a feature from its own future, and the rows must be all there.
"""

import json
import pathlib
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

NUMBERS = {"int64", "int32", "float64", "float32", "bool"}


def load(folder: pathlib.Path) -> tuple[pd.DataFrame, dict]:
    """Read a training set and its manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    if manifest["leaks"]:
        sys.exit(f"{folder}: {manifest['leaks']} rows hold a feature that is newer than their label")
    # Name the files: the folder is no plain Parquet dataset, for the manifest is in it.
    table = pa.concat_tables(pq.read_table(folder / f["path"]) for f in manifest["files"])
    if table.num_rows != manifest["rows"]:
        sys.exit(f"{folder}: {table.num_rows} rows, the manifest promises {manifest['rows']}")
    return table.to_pandas(), manifest


def numeric_features(manifest: dict) -> dict[str, str]:
    """Name of each numeric feature, as it is asked for online, to its column."""
    return {
        f"{view['alias']}:{f['name']}": f["column"]
        for view in manifest["views"]
        for f in view["features"]
        if f["type"] in NUMBERS
    }


def fit(x: np.ndarray, y: np.ndarray, steps: int = 200, rate: float = 0.5) -> tuple[np.ndarray, float]:
    """Logistic regression by gradient descent: enough for an example."""
    weights, bias = np.zeros(x.shape[1]), 0.0
    for _ in range(steps):
        error = 1 / (1 + np.exp(-(x @ weights + bias))) - y
        weights -= rate * (x.T @ error / len(y) + 1e-4 * weights)
        bias -= rate * error.mean()
    return weights, bias


def main(folder: str, out: str) -> None:
    loans, manifest = load(pathlib.Path(folder))
    for view in manifest["views"]:
        print(f"{view['view']}: {view['match_rate']:.1%} of the loans have a value")
    columns = numeric_features(manifest)
    features = loans[list(columns.values())].astype("float64")
    mean, scale = features.mean(), features.std().replace(0, 1)
    # A missing value counts as an average one, here and in the service alike.
    x = ((features - mean) / scale).fillna(0).clip(-5, 5).to_numpy()
    y = loans["loan_status"].to_numpy(dtype="float64")
    weights, bias = fit(x, y)
    right = ((x @ weights + bias > 0) == (y > 0)).mean()
    print(f"{len(y)} loans, {right:.1%} of them classified as they turned out")
    model = {
        "feature_service": manifest["service"],
        "training_set": manifest["digest"],  # which bytes this model has seen
        "features": list(columns),
        "mean": mean.tolist(), "scale": scale.tolist(), "weights": weights.tolist(), "bias": bias,
    }
    pathlib.Path(out).write_text(json.dumps(model, indent=1))
    print(f"wrote {out}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])

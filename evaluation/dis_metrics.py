"""DIS metrics (max F, weighted F, MAE, S, E, HCE) through PySODMetrics, as the DIS5K tables print them.

    rows = [dis_scores(prediction, truth) for prediction, truth in pairs]
    means = dis_means(rows)      # {"dis_max_f": 0.89, "dis_weighted_f": ..., "dis_hce": ...}

They binarise the truth, and stretch the prediction to its own minimum and maximum. On a soft truth they do
not measure what the matting metrics measure: print DIS_NOTE beside them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.scoring import DIS, F_CURVE

DIS_NOTE = (
    "DIS columns: PySODMetrics on 8-bit mattes; the truth is binarised (over 128 of 255 is foreground), "
    "the prediction is stretched to its own minimum and maximum"
)


def dis_scores(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float | list[float]]:
    """DIS figures of one matte: floats by their names in metrics.METRICS, and the F curve (256 values).

    prediction and truth are float (H, W) in [0, 1]; they are rounded to 8 bits, which is what the definitions take.
    """
    import py_sod_metrics as sod  # imported here since it takes 2 s

    f_measure = sod.FmeasureV2({"f": sod.FmeasureHandler(with_dynamic=True, with_adaptive=False, beta=0.3)})
    measures = [f_measure, sod.WeightedFmeasure(), sod.MAE(), sod.Smeasure(), sod.Emeasure()]
    measures.append(sod.HumanCorrectionEffortMeasure())
    results: dict = {}
    for measure in measures:
        measure.step(*(np.rint(alpha * 255).astype(np.uint8) for alpha in (prediction, truth)))
        results |= measure.get_results()
    curve = np.asarray(results["f"]["dynamic"], dtype=np.float64)
    return {
        "dis_max_f": float(curve.max()),
        "dis_weighted_f": float(results["wfm"]),
        "dis_mae": float(results["mae"]),
        "dis_s": float(results["sm"]),
        "dis_e": float(results["em"]["curve"].mean()),
        "dis_hce": float(results["hce"]),
        F_CURVE: curve.tolist(),
    }


def dis_means(rows: Sequence[dict]) -> dict[str, float]:
    """Figures of a set of images, from their dis_scores: means, but max F is the maximum of the mean curve."""
    names = [name for name in rows[0] if name.startswith(DIS) and name != F_CURVE]
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    means["dis_max_f"] = float(np.mean([row[F_CURVE] for row in rows], axis=0).max())
    return means

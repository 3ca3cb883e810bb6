"""The demo's AUC against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tfmtl.demo.run import auc


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn_with_ties(decimals, seed):
    generator = np.random.default_rng(seed)
    labels = (generator.random((500, 1)) < 0.2).astype("f4")
    scores = np.round(generator.normal(size=(500, 1)) + labels, decimals).astype("f4")
    got = auc({"a": scores, "b": -scores}, {"a": labels, "b": labels[:, 0]})
    expected = roc_auc_score(labels[:, 0], scores[:, 0])
    np.testing.assert_allclose(got["a"], expected, rtol=1e-12)
    np.testing.assert_allclose(got["b"], 1 - expected, rtol=1e-12)


def test_all_scores_equal_is_one_half():
    assert auc({"a": np.zeros(9)}, {"a": np.arange(9) % 2}) == {"a": 0.5}

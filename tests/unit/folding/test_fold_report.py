"""What a fold saved, as counts, estimates and measured latency."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tfmtl.features import Categorical, Encoder, Numeric, Sequence
from tfmtl.folding import FoldReport, compare, fold, structure
from tfmtl.layers import FieldGate
from tfmtl.models import mmoe, snr
from tfmtl.tasks import Binary

WORDS = ("a", "b")
FEATURES = [
    Numeric("age", mean=(0.0,), std=(1.0,)),
    Numeric("wide", mean=(0.0, 1.0), std=(1.0, 1.0), width=2),
    Categorical("job", vocabulary=WORDS),
    Categorical("city", vocabulary=WORDS),
    Sequence("tags", vocabulary=WORDS, length=3),
]


def measured(first, second, ratio):
    latency = [SimpleNamespace(p50=p50) for p50 in (first, second)]
    return SimpleNamespace(first=latency[0], second=latency[1], ratio=ratio)


@pytest.fixture
def models():
    keras.utils.set_random_seed(0)
    encoder = Encoder(FEATURES, hard_concrete={})
    model = snr(encoder, [Binary("a"), Binary("b")], levels=[(3, 4), (2, 4)])
    routing = model.get_layer("level_2")
    routing.gate.set_log_alpha([[4.0, -4.0, -4.0], [-4.0, 4.0, -4.0]])
    for layer in model.layers:
        if isinstance(layer, FieldGate):
            closed = [name in ("city", "wide", "tags") for name in layer.fields]
            layer.gate.set_log_alpha(np.where(closed, -4.0, 4.0))
    return model, fold(model)


def test_fields_are_counted_open_or_not(models):
    report = compare(*models)
    assert (report.before.fields, report.after.fields) == (5, 2)


def test_fields_of_a_model_without_gates():
    assert structure(mmoe(FEATURES, [Binary("a")])).fields == 5
    inputs = keras.Input((4,))
    assert structure(keras.Model(inputs, keras.layers.Dense(1)(inputs))).fields == 0


def test_the_report_prints_a_table(models):
    report = compare(*models, latency={512: measured(2.0, 1.0, 0.4)})
    lines = [line.split() for line in str(report).splitlines()]
    assert lines[0] == ["before", "after", "after/before"]
    assert [line[0] for line in lines[1:]] == [
        "connections",
        "sub-networks",
        "fields",
        "parameters",
        "bytes",
        "flops",
        "expected",
        "expected",
        "p50",
    ]
    assert lines[1][1:] == ["10", "6", "0.600"]
    assert lines[-1] == ["p50", "ms,", "B=512", "2.0000", "1.0000", "0.400"]


def test_the_report_is_json(models):
    report = compare(*models).with_latency({np.int64(1): measured(0.5, 0.25, 0.5)})
    found = json.loads(json.dumps(report.as_dict()))
    assert found["connections"] == {"before": 10, "after": 6, "ratio": 0.6}
    assert found["latency_ms"] == {"1": {"before": 0.5, "after": 0.25, "ratio": 0.5}}
    assert set(found["estimated_ms"]) == {"1", "512"}
    assert report.before.as_dict()["fields"] == 5
    assert set(report.before.as_dict()) < set(found)


def test_nothing_of_nothing_has_no_ratio():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Flatten()(inputs))
    report = compare(model, fold(model))
    assert report.as_dict()["flops"] == {"before": 0, "after": 0, "ratio": None}
    assert str(report).splitlines()[1].split() == ["connections", "0", "0", "-"]


def test_estimates_follow_the_formula():
    inputs = keras.Input((100,))
    model = keras.Model(inputs, keras.layers.Dense(50, use_bias=False)(inputs))
    [estimate] = compare(model, model).estimates([8]).values()
    expected = 1000 * (8 * 2 * 5000 / 120e9 + 5000 / 2.5e9)
    assert estimate.before == pytest.approx(expected)
    assert estimate.ratio == 1


def test_a_table_is_not_read_whole():
    inputs = keras.Input((1,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(1000, 10)(inputs))
    with_table = structure(keras.Model(inputs, keras.layers.Dense(3)(x)))
    assert with_table.milliseconds() == pytest.approx(1000 * (60 / 120e9 + 30 / 2.5e9))


def test_latency_is_by_batch_size(models):
    with pytest.raises(ValueError, match="`latency` should be a dict.*Received"):
        FoldReport(*map(structure, models)).with_latency([measured(1, 1, 1)])

"""Census-Income, where its files are: the whole training file, scored once."""

import pytest

from tfmtl import demo


@pytest.fixture(scope="module")
def outcome(census_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("census")
    source = demo.census_income(census_folder, folder / "data")
    assert len(source.train[1]["income"]) == 199_523
    assert len(source.test[1]["income"]) == 99_762
    return demo.run(source, folder)


def test_half_of_the_connections_are_closed(outcome):
    before, after = outcome.report[:2]
    assert before.connections == 54
    assert outcome.open_connections <= 0.5 * before.connections
    assert after.connections <= outcome.open_connections


def test_auc_on_the_test_file_after_the_fold(outcome):
    assert outcome.after["income"].auc >= 0.9475
    assert outcome.after["never_married"].auc >= 0.994
    assert outcome.after["college"].auc >= 0.894


def test_scores_are_the_same_on_the_whole_test_file(outcome):
    assert outcome.fold_difference <= 1e-5
    assert outcome.serving_difference <= 1e-5


def test_the_savedmodel_shrinks_by_what_the_report_says(outcome):
    before, after = outcome.export_before.scan, outcome.export_after.scan
    said = outcome.report.before.bytes - outcome.report.after.bytes
    assert before.weight_bytes - after.weight_bytes == said

"""The bias of a maximum, by layer: of ten alike clients it lies about 1.54 spreads above the mean in every layer."""

from experiments.studies.pooling.pool_bias import biases


def test_the_maximum_of_ten_lies_above_the_mean_by_what_order_statistics_say() -> None:
    local = {"steps": 1, "batch_size": 10, "lr": 0.1}
    rows = biases({"task": "digits", "partition": "iid", "clients": 40, "cohort": 10, "model": "lr", "local": local})
    assert [row.leaf for row in rows] == ["1.weight", "1.bias"]
    for row in rows:  # 1.54 / (9 / 10)^(1/2) = 1.62 of normal numbers; gradients of ten digits are skewed
        assert 1.3 < row.excess < 2.1 and row.max > 0.5 * row.spread > abs(row.mean)

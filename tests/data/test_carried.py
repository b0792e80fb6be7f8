"""The data that come with nldsl, as builds carry them."""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections import Counter

import pytest

from nldsl.data import carried

SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


def test_the_digits_are_those_of_the_package_that_they_are_from() -> None:
    packed = carried.carried("digits")["digits.csv.gz"]
    assert hashlib.sha256(packed).hexdigest() == SHA256
    rows = [
        [int(float(cell)) for cell in row]
        for row in csv.reader(gzip.decompress(packed).decode().splitlines())
    ]
    assert len(rows) == 1797
    assert {len(row) for row in rows} == {65}
    assert {pixel for row in rows for pixel in row[:-1]} == set(range(17))
    counts = Counter(row[-1] for row in rows)
    assert sorted(counts) == list(range(10))
    assert min(counts.values()) == 174


@pytest.mark.parametrize("name", carried.names())
def test_what_comes_with_nldsl_is_carried(name: str) -> None:
    assert carried.carried(name)


def test_a_file_of_the_users_is_not() -> None:
    assert carried.carried("own.txt") == {}

"""What runners on other machines share."""

from __future__ import annotations

import pytest

from nldsl.ablate import elsewhere
from nldsl.run.folder import RunError

KNOWN = {
    "cpus": elsewhere.some,
    "gpus": elsewhere.number,
    "time": elsewhere.minutes,
    "queue": elsewhere.words,
}


def test_a_package_that_is_missing_is_a_finding_with_the_command() -> None:
    with pytest.raises(RunError) as caught:
        elsewhere.need("no_such_package_for_nldsl", "ray", "ray")
    found = caught.value.diagnostic
    assert found.code == "NL0930" and caught.value.exit_code == 2
    assert found.help == "run `pip install 'nldsl[ray]'`"


def test_a_package_that_is_there_is_none() -> None:
    elsewhere.need("json", "ray", "ray")


def test_options_are_read() -> None:
    given = {"cpus": "2", "gpus": 0.5, "time": "1:30:00", "queue": "short,long"}
    read = {"cpus": 2, "gpus": 0.5, "time": 90, "queue": "short,long"}
    assert elsewhere.read_options("ray", given, KNOWN) == read
    assert elsewhere.read_options("ray", {}, KNOWN) == {}


@pytest.mark.parametrize(
    ("given", "said", "help"),
    [
        ({"cpu": 1}, "`cpu` is no option of `--on ray`", "maybe `cpus`"),
        ({"disk": 1}, "`disk` is no option of `--on ray`", "it has `cpus`, `gpus`, `time`, `queue`"),
        ({"queue": " "}, "`queue =  ` of `--on ray`: a name is wanted", None),
        ({"queue": "a\nb"}, "`queue = a\nb` of `--on ray`: a name is wanted", None),
        ({"cpus": 0}, "`cpus = 0` of `--on ray`: a number above 0 is wanted", None),
        ({"cpus": "many"}, "`cpus = many` of `--on ray`: a number from 0 is wanted", None),
        ({"gpus": "nan"}, "`gpus = nan` of `--on ray`: a number from 0 is wanted", None),
        ({"gpus": "inf"}, "`gpus = inf` of `--on ray`: a number from 0 is wanted", None),
        ({"gpus": -1}, "`gpus = -1` of `--on ray`: a number from 0 is wanted", None),
        (
            {"time": "soon"},
            "`time = soon` of `--on ray`: a time is wanted, such as 90 (minutes), 2:00:00",
            None,
        ),
        ({"time": "0"}, "`time = 0` of `--on ray`: a time above 0 is wanted", None),
    ],
)
def test_what_an_option_cannot_be_is_said(given: dict[str, object], said: str, help: str | None) -> None:
    with pytest.raises(RunError) as caught:
        elsewhere.read_options("ray", given, KNOWN)
    found = caught.value.diagnostic
    assert found.code == "NL0931"
    assert found.message.startswith(said)
    assert found.help == help


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("1:30", 2), ("2:00:00", 120), ("1-12", 2160), ("1-12:30", 2190), ("0-0:00:01", 1)],
)
def test_times_are_those_of_sbatch(text: str, minutes: int) -> None:
    assert elsewhere.minutes(text) == minutes


def test_whole_numbers() -> None:
    assert (elsewhere.whole("0"), elsewhere.counting("7")) == (0, 7)
    for text in ("-1", "1.5", "", "x"):
        with pytest.raises(ValueError, match="whole"):
            elsewhere.whole(text)
    with pytest.raises(ValueError, match="above 0"):
        elsewhere.counting("0")

"""A study that has been run to its end by nobody's disturbing, once for all tests."""

from __future__ import annotations

import pytest

from nldsl.ablate import local
from nldsl.ablate.study import Study

from .studies import fork, make, warm


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of two variants, the base and two seeds; nobody changes what is in it."""
    study = make(tmp_path_factory.mktemp("done") / "study")
    warm()
    assert local.run(study, jobs=2, start=fork) == 0
    return study

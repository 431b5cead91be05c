"""Fixtures for tests that load prepared data sets."""

import pytest


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """The cache of `datasets` in a folder of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield

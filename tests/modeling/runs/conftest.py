import pytest

from tests.modeling.runs import run_data


@pytest.fixture(scope="package")
def clips(tmp_path_factory):
    """A folder with clips, and their rows."""
    folder = tmp_path_factory.mktemp("clips")
    return folder, run_data.make_clips(folder)


@pytest.fixture(scope="package")
def manifest(clips):
    return run_data.write_jsonl(clips[0] / "manifest.jsonl", clips[1])

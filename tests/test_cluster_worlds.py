"""Whole jobs in random worlds: whatever dies, every row has its own answer, and next to nothing is paid twice.

``python -m tests.cluster_worlds`` runs as many more as wanted.
"""

from collections.abc import Iterator

import pytest

from tests.cluster_worlds import ShardWorld, run_world
from tests.object_store import ObjectStore
from tests.world_jobs import DOCUMENTS
from tests.world_processes import nursery

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nursery(tmp_path_factory.mktemp("nursery")) as path:
        yield path


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_job_on_many_machines_survives_deaths_and_changes(
    forks: str, seed: int, object_store: ObjectStore
) -> None:
    assert run_world(seed, forks, alone=False, store=object_store).problems == []


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_job_on_one_machine_survives_deaths_and_changes(forks: str, seed: int) -> None:
    assert run_world(seed, forks, alone=True).problems == []


@pytest.mark.parametrize("seed", [2, 3])
def test_shards_that_die_become_one_file_in_which_no_row_is_missing_or_twice(forks: str, seed: int) -> None:
    assert run_world(seed, forks, alone=True, kind=ShardWorld).problems == []


@pytest.mark.parametrize("seed", [3, 4])
def test_documents_as_rows_survive_deaths(forks: str, seed: int) -> None:
    assert run_world(seed, forks, alone=True, kinds=DOCUMENTS).problems == []

from __future__ import annotations

from pathlib import Path

import pytest

from tests.smgw.rig import Papers


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers.made(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="session")
def nist_papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers.made(tmp_path_factory.mktemp("nist-papers"), "prime256v1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path

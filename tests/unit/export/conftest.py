"""A handmade model on a conformance server, and the scripts of `export/`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "export"))
EXTRA = "needs the extra `.[serving]`"


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The folder of the handmade model, with version 1."""
    handmade = pytest.importorskip("handmade", reason=EXTRA)
    folder = tmp_path_factory.mktemp("models") / "ranker"
    handmade.write(folder / "1")
    return folder


@pytest.fixture(scope="session")
def served(base):
    """The loaded models, their gRPC and their REST address."""
    server = pytest.importorskip("conformance_server", reason=EXTRA)
    rest = pytest.importorskip("conformance_rest", reason=EXTRA)
    models = server.Models({"ranker": base})
    with (
        server.serving(models) as grpc_address,
        rest.rest_serving(models) as rest_address,
    ):
        yield models, grpc_address, rest_address
    models.close()


@pytest.fixture
def models(served):
    """The loaded models, without a record of requests."""
    served[0].rows.clear()
    served[0].busy = 0
    return served[0]


@pytest.fixture
def grpc_address(served):
    """Host and port of the gRPC server."""
    return served[1]


@pytest.fixture
def rest_address(served):
    """Host and port of the REST server."""
    return served[2]

"""A fuzzer reads the API's description and asks everything it can think of: nothing may end in 5xx."""

import ctypes

import pytest
from conftest import served_at

from export.serving.model import open_served

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
import hypothesis  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance  # noqa: E402


@pytest.fixture(autouse=True)
def subnormal_numbers():
    """A kernel of MindSpore leaves its thread without them, and hypothesis wants them."""
    if float("5e-324") * 1.0 == 0:
        ctypes.CDLL(None).fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV of glibc


@pytest.fixture(scope="module")
def schema(exported):
    with served_at(open_served(exported)) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", "/predict"),
        ("GET", "/health"),
        ("GET", "/manifest"),
        ("GET", "/card"),
        ("GET", "/mistakes/{number}"),
    ],
)
def test_nothing_ends_in_a_server_error_and_all_is_as_described(schema, method, path):
    asked = []

    @hypothesis.settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=schema[path][method].as_strategy())
    def ask(case):
        response = case.call()
        asked.append(response.status_code)
        case.validate_response(
            response, checks=[not_a_server_error, status_code_conformance, response_schema_conformance]
        )

    ask()
    assert asked and max(asked) < 500

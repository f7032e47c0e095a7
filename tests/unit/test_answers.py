"""Answers of services, as far as messages show them."""

import httpx2
import pytest

from maintainer.stores.http.answers import Answer, refused


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no such key index-buildkit-1-f921bd05#3", "no such key index-buildkit-1-f921bd05#3"),
        (f"blob sha256:{'0' * 64} is unknown", f"blob sha256:{'0' * 64} is unknown"),
        (
            "request 123e4567-e89b-12d3-a456-426614174000",
            "request 123e4567-e89b-12d3-a456-426614174000",
        ),
        ("did not match: sp=w&sig=a%2Bb%3D&se=1", "did not match: sp=w&sig=…&se=1"),
        ("bad SIG%3Dabc%26 here", "bad SIG%3D… here"),
        (f"rest of it: {'aB3-' * 10}.{'cD4_' * 10}", "rest of it: ….…"),
        ("see https://storage.test/blob?sig=abc", "see https://storage.test/blob?…"),
    ],
)
def test_a_message_shows_nothing_that_looks_like_a_secret(said: str, shown: str) -> None:
    answer = Answer(400, httpx2.Headers(), b"", httpx2.Request("GET", "https://api.test/caches"))

    assert str(refused(answer, said)) == f"GET https://api.test/caches answered HTTP 400: {shown}"

import maintainer


def test_version_is_three_numbers() -> None:
    assert len(maintainer.__version__.split(".")) == 3

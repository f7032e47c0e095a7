"""The settings of a run, as tests choose them."""

from collections.abc import Mapping

from maintainer.settings import Settings

_SIZES = ("quota", "max_index_size", "max_merge_size")


def choose(settings: Mapping[str, object]) -> Settings:
    """Return settings whose sizes are in bytes, however small: people have to write a unit."""
    sizes = {key: f"{settings[key]}B" for key in _SIZES if isinstance(settings.get(key), int)}
    return Settings.model_validate({**settings, **sizes})

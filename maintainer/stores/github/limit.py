"""What GitHub limits together: all requests with one token, or of one installation."""

from maintainer.settings import GitHubSettings
from maintainer.stores.http.requests import name_limit


def limit_of(settings: GitHubSettings) -> str:
    """Return the name of the rate limit; empty without a token, as nothing is shared then."""
    if settings.app:
        app = settings.app
        return name_limit(settings.api_url, str(app.app_id), str(app.installation))
    if settings.token:
        return name_limit(settings.api_url, settings.token.get_secret_value())
    return ""

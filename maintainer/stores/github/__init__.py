"""GitHub's Actions cache, and the self-hosted services that speak its protocols."""

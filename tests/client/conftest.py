"""A PostgreSQL for the tests of the database client."""

from tests.harness.database import postgres, session_postgres, url

__all__ = ["postgres", "session_postgres", "url"]

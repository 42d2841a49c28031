"""The package's own version."""

from importlib import metadata

PACKAGE = "ldt-bench"


def version() -> str:
    """As installed; "unknown" of a checkout that is run without being installed."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "unknown"

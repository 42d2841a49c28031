"""calibration.json, read back from a result."""

from pathlib import Path

import pydantic_core
from pydantic import ValidationError

from bench.calibrate.calibration import SCHEMA_VERSION, Calibration
from bench.core.errors import UserError
from bench.results.store import CALIBRATION, check_directory, first_problem, read_bytes


def read_calibration(directory: Path) -> Calibration:
    """calibration.json of a result.  Raises UserError where it is missing, damaged or newer."""
    path = directory / CALIBRATION
    check_directory(directory)
    if not path.is_file():
        raise UserError(
            f"{directory}: no {CALIBRATION} in it; `ldt-bench calibrate {directory}` makes it"
        )
    problem = "not a JSON object"
    try:
        data = pydantic_core.from_json(read_bytes(path))  # bounds the depth
        version = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema version {version} is newer than this ldt-bench's "
                f"{SCHEMA_VERSION}; upgrade it to read this calibration"
            )
        if isinstance(version, int) and version < SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema version {version} is of an older cost model; "
                f"`ldt-bench calibrate {directory}` makes it anew from the records"
            )
        if isinstance(data, dict):
            return Calibration.model_validate(data)
    except ValidationError as error:
        problem = first_problem(error)
    except ValueError as error:
        problem = str(error)
    raise UserError(f"{path}: damaged ({problem}); `ldt-bench calibrate {directory}` makes it anew")

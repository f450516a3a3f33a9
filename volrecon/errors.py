"""Every error a user can cause, one class a kind, each with the exit code of the command line."""


class VolreconError(Exception):
    """What was asked, what was found, what to do."""

    exit_code = 1


class ConfigError(VolreconError):
    """A job, method, option or argument that cannot be meant."""

    exit_code = 2


class GeometryError(ConfigError):
    """Distances, angles or grids that no scanner has."""


class DataError(VolreconError):
    """An input file or array that cannot be used as it is."""

    exit_code = 3


class WeightsError(DataError):
    """Weights that are no safetensors of ours, are damaged, or belong to another network."""


class IntegrityError(VolreconError):
    """A stored array of ours that is incomplete, damaged or not what it says."""

    exit_code = 4


class ResourceError(VolreconError):
    """Memory, disk, device or permission that is missing."""

    exit_code = 5


class LockedError(VolreconError):
    """Another process writes the same output."""

    exit_code = 6


class DivergedError(VolreconError):
    """The iteration left the finite numbers or moved away from the data."""

    exit_code = 7


class StoppedError(VolreconError):
    """A run that was told to end early; its state is committed."""

    exit_code = 130


class GeometryWarning(UserWarning):
    """A geometry that can be used but loses something: truncation, unseen voxels, repeated angles."""


class PriorWarning(UserWarning):
    """A prior used on something it was not trained for: voxel sizes, slice distances, levels of attenuation."""


class StorageWarning(UserWarning):
    """Something on disk is not as it was left, and the run goes on without it."""

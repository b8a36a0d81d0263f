"""The errors of this package. Each message is one line that names the cause and the mend."""


class MFuserError(Exception):
    """Base of every error that the package raises on purpose."""


class VocabularyError(MFuserError):
    """A vocabulary file is missing, malformed or contradicts itself."""


class CheckpointError(MFuserError):
    """Weights are missing, corrupt, or belong to another architecture."""


class ConfigurationError(MFuserError):
    """A setting has a value that cannot work."""


class DeviceError(MFuserError):
    """A device was asked for that this machine does not have."""


class InferenceError(MFuserError):
    """The network gave no usable result for a picture, such as scores that are not numbers."""


class InputError(MFuserError):
    """A picture, video, bag or message cannot be used."""


class CalibrationError(MFuserError):
    """Camera intrinsics or a camera pose cannot be used."""


class DatasetError(MFuserError):
    """A data set is incomplete or a file of it is wrong."""


class WorkerError(MFuserError):
    """Processes or machines that share the work died, or cannot be reached."""


class NodeError(MFuserError):
    """The node could not be started, died, or did not answer in time."""

"""Every error training raises on purpose; the command line prints the message and exits 2.

TrainingError
├── ConfigurationError   a recipe, an override or a model that cannot be used; names the key and the remedy
├── DataError            a row that cannot be used; names the file and the line
├── RewardError          a reward that gave no usable scores; names the term
└── RunError             a run or output directory that cannot be used; names the path and the remedy
"""


class TrainingError(Exception):
    """Base of every error raised on purpose."""


class ConfigurationError(TrainingError):
    """A recipe, an override or a model cannot be used; the message names the key and the remedy."""


class DataError(TrainingError):
    """A row of data cannot be used; the message names the file and the line."""


class RewardError(TrainingError):
    """A reward gave no usable scores; the message names the term."""


class RunError(TrainingError):
    """A run or output directory cannot be used; the message names the path and the remedy."""

"""What of the log is for the console."""

from __future__ import annotations

import logging

# Long dumps that belong into the log file, where they stay.
_FILE_ONLY = (
    'System environment:',
    'Runtime environment:',
    'Config:\n',
    'Hooks will be executed',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'Exp name: ',
    'Saving checkpoint at ',
    'Distributed training is not used, all SyncBatchNorm',
    'The model and loaded state dict do not match exactly',
    'Loads checkpoint by',
)


class ConsoleFilter(logging.Filter):
    """Leaves out what only the log file needs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See :class:`logging.Filter`."""
        message = record.getMessage()
        return not any(start in message for start in _FILE_ONLY)

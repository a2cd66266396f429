"""Version of mmlt."""

__version__ = '0.1.0'

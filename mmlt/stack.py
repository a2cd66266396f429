"""The MM packages below: which are installed, and what breaks in them on today's Python."""

from __future__ import annotations

import importlib.util
import os.path as osp
from importlib import metadata

# Upstream's packages and those of the maintained fork, which have the same folders.
_SAME_FOLDER = (
    ('mmengine', 'onedl-mmengine'),
    ('mmpretrain', 'onedl-mmpretrain'),
    ('mmcv', 'onedl-mmcv'),
    ('mmcv-lite', 'onedl-mmcv'),
    ('mmcv', 'mmcv-lite'),
)


def installed_version(distribution: str) -> str | None:
    """Version of a package, None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def clash() -> str | None:
    """What to say where two packages have overwritten each other's folder.

    Returns:
        str | None: A sentence with a remedy; None where all is well.
    """
    for pair in _SAME_FOLDER:
        if all(installed_version(name) for name in pair):
            return (
                f'{pair[0]} and {pair[1]} are both installed and have overwritten each other: pip uninstall -y '
                f'{pair[0]} {pair[1]}, and then pip install -r requirements.txt, or requirements-onedl.txt for the '
                'OneDL packages.'
            )
    return None


def is_installed(package: str) -> bool:
    """As MMEngine's function of this name, without pkg_resources.

    Args:
        package (str): Name of a package or module.
    """
    return importlib.util.find_spec(package.replace('-', '_')) is not None or installed_version(package) is not None


def get_installed_path(package: str) -> str:
    """As MMEngine's function of this name, without pkg_resources.

    Args:
        package (str): Name of a module.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    spec = importlib.util.find_spec(package.replace('-', '_'))
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"The package '{package}' is not installed: pip install {package}.")
    return osp.dirname(spec.origin)


def mend_package_lookup() -> None:
    """Let ``_base_ = 'mmpretrain::...'`` work with setuptools 82 and later, which have no pkg_resources."""
    import mmengine.config.config
    import mmengine.hub.hub

    if importlib.util.find_spec('pkg_resources') is not None:
        return
    for module in (mmengine.config.config, mmengine.hub.hub):
        for function in (is_installed, get_installed_path):
            if hasattr(module, function.__name__):
                setattr(module, function.__name__, function)

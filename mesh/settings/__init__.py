"""One host's settings file and the files that declare services."""

from mesh.settings.declaration import load_declaration, load_declarations
from mesh.settings.load import load_settings, parse_settings
from mesh.settings.model import HostSettings
from mesh.settings.values import Endpoint

__all__ = [
    "Endpoint",
    "HostSettings",
    "load_declaration",
    "load_declarations",
    "load_settings",
    "parse_settings",
]

"""The version; setup.cfg and all records read it from here."""

__version__ = "0.1.0"

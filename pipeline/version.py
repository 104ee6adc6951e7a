"""The version, in one place; setup.cfg and every record that names a version read it here."""

__version__ = "0.1.0"

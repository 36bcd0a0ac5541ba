"""The version, where the code below the package's door can read it."""

VERSION = "0.1.0"

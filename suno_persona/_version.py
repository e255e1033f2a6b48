"""The version of this package, for its `User-Agent` and its build."""

VERSION = "0.1.0"

"""Helpers that the test modules share: services, commands, databases, clocks. No test module imports another one."""

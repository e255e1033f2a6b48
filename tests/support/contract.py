"""The persona that the contract shows."""

from pathlib import Path

CONTRACT_EXAMPLE = Path(__file__).with_name("contract_example.json").read_bytes()

"""Testbeds: small real chat models that refuse too much, built from PyPI alone. Nothing else here knows them."""

"""Devices, compiled programs, cadences and progress lines."""

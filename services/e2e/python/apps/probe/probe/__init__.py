"""The probe app of the end-to-end tests."""

"""An app whose rounds do nothing."""

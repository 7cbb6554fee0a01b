//! The in-process transport.

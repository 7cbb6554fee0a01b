//! Tests of the whole: `tests/it` in Rust, `python/` with stock Flower programs.

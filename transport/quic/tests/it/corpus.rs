//! What fuzzing has found, again.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/checks.rs"]
mod checks;

#[test]
fn frames_of_any_bytes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frame");
    let mut inputs = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        checks::frame(&fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 100, "{inputs} inputs are not the corpus");
}

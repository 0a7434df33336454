//! GGUF files: metadata, tensors' places, and all rows of those that are understood.

#![no_main]

use std::path::PathBuf;

use dwindle_compiler::checkpoint::read_gguf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = PathBuf::from(format!("/dev/shm/dwindle-fuzz-{}.gguf", std::process::id()));
    std::fs::write(&path, bytes).expect("there is room in memory");
    let _ = read_gguf(&path);
});

//! GGUF files: headers, metadata and tokenizers where they lie in memory; files whose header is right as convert reads them, with
//! all rows of all tensors.

#![no_main]

use std::path::PathBuf;

use dwindle_compiler::checkpoint::{is_gguf, read_gguf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if !is_gguf(bytes) {
        return;
    }
    // A folder of its own: what lies beside a file belongs to it.
    let folder = PathBuf::from(format!("/dev/shm/dwindle-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("there is room in memory");
    let path = folder.join("model.gguf");
    std::fs::write(&path, bytes).expect("there is room in memory");
    let _ = read_gguf(&path);
});

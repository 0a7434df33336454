//! Headers of safetensors files: whole files, and headers with the right length before them and some bytes behind.

#![no_main]

use dwindle_compiler::checkpoint::safetensors::Header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = match bytes.split_first() {
        Some((b'{', _)) => [&(bytes.len() as u64).to_le_bytes()[..], bytes, &[0; 64]].concat(),
        _ => bytes.to_vec(),
    };
    if let Ok(header) = Header::parse(&file) {
        for (name, entry) in header.iter() {
            assert!(entry.bytes.start <= entry.bytes.end && entry.bytes.end <= file.len(), "{name}");
        }
    }
});

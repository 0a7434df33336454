//! Tokenizers: loaded, and a text encoded and decoded. The text follows the last line break.

#![no_main]

use dwindle_runtime::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let (json, text) = bytes.split_at(end);
    let Ok(tokenizer) = Tokenizer::from_bytes(json) else { return };
    let text = String::from_utf8_lossy(text);
    for text in [&*text, "Hello, wörld!  \t 你好 <s></s>\u{301}"] {
        for special in [false, true] {
            if let Ok(tokens) = tokenizer.encode(text, special) {
                let _ = tokenizer.decode(&tokens);
            }
        }
    }
});

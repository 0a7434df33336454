//! Reading JSON files of bounded size, as Python's `json` reads them.
//!
//! Python writes numbers that are no numbers as `NaN`, `Infinity` and `-Infinity`, and half of a surrogate pair as an escape.
//! Neither is JSON. The former are read as texts of that name, so that a key that matters refuses them by name; the latter as
//! U+FFFD. A byte order mark and bytes after the value are errors, as they are there.

use std::borrow::Cow;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Largest configuration or index that is read, in bytes; the indices of the largest published models take 100 kB.
pub(crate) const MAX_BYTES: u64 = 64 << 20;

/// What Python writes for numbers that are none; none begins with another.
const NO_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Parses the file, which may have at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Value> {
    let bytes = read_bytes(path, limit)?;
    parse(&bytes).map_err(|reason| Error::json(path, reason))
}

/// Parses a text; what is wrong with it, else.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, String> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err("begins with a byte order mark; save it as UTF-8 without one".to_owned());
    }
    let strict = serde_json::from_slice(bytes);
    strict.or_else(|error| {
        let reason = format!("not valid JSON: {error}");
        let text = std::str::from_utf8(bytes).map_err(|_| reason.clone())?;
        match strictly(text) {
            Cow::Borrowed(_) => Err(reason),
            Cow::Owned(text) => serde_json::from_str(&text).map_err(|error| format!("not valid JSON: {error}")),
        }
    })
}

/// The text with what only Python writes replaced by JSON; borrowed where there is nothing of the kind.
fn strictly(text: &str) -> Cow<'_, str> {
    let mut replaced = String::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    let bytes = text.as_bytes();
    let mut replace = |from: &mut usize, at: usize, length: usize, with: &str| {
        replaced += &text[*from..at];
        replaced += with;
        *from = at + length;
    };
    while at < bytes.len() {
        match bytes[at] {
            b'"' => in_string = !in_string,
            b'\\' if in_string => match surrogate(&bytes[at..]) {
                None => at += 1,
                Some(unit) => {
                    let low = |unit: u16| (0xdc00..0xe000).contains(&unit);
                    let is_pair = !low(unit) && surrogate(&bytes[at + 6..]).is_some_and(low);
                    let length = if is_pair { 12 } else { 6 };
                    if !is_pair {
                        replace(&mut copied, at, length, "\\ufffd");
                    }
                    at += length - 1;
                }
            },
            b'N' | b'I' | b'-' if !in_string => {
                if let Some(word) = NO_NUMBERS.iter().find(|word| text[at..].starts_with(**word)) {
                    replace(&mut copied, at, word.len(), &format!("\"{word}\""));
                    at += word.len() - 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 { Cow::Borrowed(text) } else { Cow::Owned(replaced + &text[copied..]) }
}

/// The half of a surrogate pair that the escape at the beginning of `bytes` writes.
fn surrogate(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    let unit = u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (0xd800..0xe000).contains(&unit).then_some(unit)
}

/// The bytes of a file that may have at most `limit` of them.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let length = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if length > limit {
        return Err(Error::json(path, format!("has {length} bytes, the limit is {limit}")));
    }
    std::fs::read(path).map_err(Error::io("read", path))
}

/// Parses a file of bounded size.
pub(crate) fn read_config(path: &Path) -> Result<Value> {
    read(path, MAX_BYTES)
}

/// Parses a file whose outermost value is an object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    match read(path, MAX_BYTES)? {
        Value::Object(map) => Ok(map),
        _ => Err(Error::json(path, "expected an object")),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(text: &[u8], expected: Expect) {
        expected.assert_eq(&parse(text).map_or_else(|error| error, |value| value.to_string()));
    }

    #[test]
    fn what_python_writes() {
        check(br#"{"a": NaN, "b": [Infinity, -Infinity]}"#, expect![[r#"{"a":"NaN","b":["Infinity","-Infinity"]}"#]]);
        check(br#"[NaN, "NaN, \"Infinity", -1]"#, expect![[r#"["NaN","NaN, \"Infinity",-1]"#]]);
        check(b"NaN", expect![[r#""NaN""#]]);
        check(br#"["\ud83d", "\ud83d\ude00", "\ude00\ud83d", "\\ud83d"]"#, expect![[r#"["�","😀","��","\\ud83d"]"#]]);
        check("[NaN, \"gr\u{fc}n\"]".as_bytes(), expect![[r#"["NaN","grün"]"#]]);
    }

    #[test]
    fn what_python_refuses_too() {
        check(b"\xef\xbb\xbf{}", expect!["begins with a byte order mark; save it as UTF-8 without one"]);
        check(b"{}\0\0", expect!["not valid JSON: trailing characters at line 1 column 3"]);
        check(b"[-NaN]", expect!["not valid JSON: invalid number at line 1 column 3"]);
        check(b"[Nan]", expect!["not valid JSON: expected value at line 1 column 2"]);
        check(b"[NaNs]", expect!["not valid JSON: expected `,` or `]` at line 1 column 7"]);
        check(b"{\"a\": \"\xff\"}", expect!["not valid JSON: invalid unicode code point at line 1 column 8"]);
        check(br#"["\ud8"#, expect!["not valid JSON: EOF while parsing a string at line 1 column 6"]);
        check(b"", expect!["not valid JSON: EOF while parsing a value at line 1 column 0"]);
    }
}

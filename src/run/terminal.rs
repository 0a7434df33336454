//! What may be sent to a terminal: a model's text is untrusted, and escape sequences in it must not act.

use std::io::{self, Write};

/// Writes text without control characters other than line breaks and tabs.
pub fn write_clean(out: &mut impl Write, text: &str) -> io::Result<()> {
    let acts = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(acts) {
        let clean: String = text.chars().map(|c| if acts(c) { '\u{fffd}' } else { c }).collect();
        out.write_all(clean.as_bytes())
    } else {
        out.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_replaced() {
        let mut out = Vec::new();
        write_clean(&mut out, "a\tb\n\u{1b}[31mred\u{7}\u{9b}2J").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\tb\n\u{fffd}[31mred\u{fffd}\u{fffd}2J");
    }
}

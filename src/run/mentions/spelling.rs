//! The ways in which a path is written or dropped into a message: quoted and escaped for a shell, as a `file:` URI,
//! with `~`, or as it is.

use std::path::{Path, PathBuf};

/// The paths that `text` may stand for, the likeliest first; `home` replaces `~`.
pub fn paths(text: &str, home: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = of_uri(text) {
        return vec![path];
    }
    let mut texts = vec![text.to_owned()];
    if text.contains(['\\', '\'', '"']) {
        let unquoted = unquote(text);
        if unquoted != text {
            texts.push(unquoted);
        }
    }
    texts.iter().filter(|text| !text.contains('\0')).map(|text| expand(text, home)).collect()
}

/// Whether this is a URI of a file on this machine.
pub fn is_file_uri(text: &str) -> bool {
    text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:")) && text[5..].starts_with('/')
}

/// The path of `file:///path`, `file://localhost/path` or `file:/path`, percent-decoded.
fn of_uri(text: &str) -> Option<PathBuf> {
    if !is_file_uri(text) {
        return None;
    }
    let rest = &text[5..];
    let path = match rest.strip_prefix("//") {
        Some(after) => &after[after.find('/')?..],
        None => rest,
    };
    let bytes = percent_decoded(path);
    if bytes.contains(&0) {
        return None;
    }
    // Names need not be UTF-8.
    #[cfg(unix)]
    let path = PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes));
    // `/C:/folder/name` there.
    #[cfg(not(unix))]
    let path = {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        PathBuf::from(text.strip_prefix('/').unwrap_or(&text))
    };
    Some(path)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match value.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%') {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// What a POSIX shell makes of a word: nothing is escaped inside `'…'`, some inside `"…"`, everything by a backslash
/// outside. A quote that is never closed ends with the text.
fn unquote(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => result.push(c),
            (None, '\'' | '"') => quote = Some(c),
            (None, '\\') => result.extend(chars.next()),
            (Some(_), '\\') => match chars.next_if(|next| matches!(next, '"' | '\\' | '$' | '`')) {
                Some(escaped) => result.push(escaped),
                None => result.push(c),
            },
            _ => result.push(c),
        }
    }
    result
}

fn expand(text: &str, home: Option<&Path>) -> PathBuf {
    let rest = text.strip_prefix('~').filter(|rest| rest.starts_with(std::path::is_separator));
    match (rest, home) {
        (Some(rest), Some(home)) => home.join(rest.trim_start_matches(std::path::is_separator)),
        _ => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_words_are_unquoted() {
        for (text, expected) in [
            (r"my\ pictures/a\(1\).png", "my pictures/a(1).png"),
            (r"'it'\''s.png", "it's.png"),
            (r#"'a b.png'"#, "a b.png"),
            (r#""a \"b\" \c.png""#, r#"a "b" \c.png"#),
            ("'never closed.png", "never closed.png"),
            ("plain.png", "plain.png"),
            (r"ends with\", "ends with"),
        ] {
            assert_eq!(unquote(text), expected, "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn uris_are_decoded() {
        use std::os::unix::ffi::OsStrExt;
        for (text, expected) in [
            ("file:///a/b%20c.png", Some(&b"/a/b c.png"[..])),
            ("FILE://localhost/%E7%8C%AB.png", Some("/猫.png".as_bytes())),
            ("file:/a%2fb%.png%4", Some(b"/a/b%.png%4")),
            ("file:///%ff.png", Some(b"/\xff.png")),
            ("file:///a%00b.png", None),
            ("file://host-only", None),
            ("file:relative.png", None),
            ("https://example.com/a.png", None),
        ] {
            let path = of_uri(text);
            assert_eq!(path.as_ref().map(|path| path.as_os_str().as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn tilde_is_home_only_in_front_of_a_separator() {
        let home = Some(Path::new("/home/ana"));
        assert_eq!(paths("~/a.png", home), [Path::new("/home/ana/a.png")]);
        assert_eq!(paths("~a.png", home), [Path::new("~a.png")]);
        assert_eq!(paths("~/a.png", None), [Path::new("~/a.png")]);
        assert_eq!(paths(r"~/a\ b.png", home), [Path::new(r"/home/ana/a\ b.png"), Path::new("/home/ana/a b.png")]);
    }
}

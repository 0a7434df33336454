//! Finds paths of pictures inside a typed message: quoted, escaped as terminals drop them, with `~`, or bare with spaces.

use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];

/// A message and the pictures it named.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// The message without the paths of pictures that exist.
    pub message: String,
    /// Pictures that exist, in order.
    pub found: Vec<PathBuf>,
    /// What looked like a picture's path but is not there, as typed.
    pub missing: Vec<String>,
}

/// Splits a message into text and paths; `exists` tells which paths are files, `home` replaces `~`.
pub fn find(message: &str, home: Option<&Path>, exists: impl Fn(&Path) -> bool) -> Mentions {
    let words = split(message);
    let mut mentions = Mentions::default();
    let mut taken = vec![false; words.len()];
    for (end, word) in words.iter().enumerate() {
        if !is_picture(&word.text) {
            continue;
        }
        // The longest run of words ending here that is a file: bare paths may hold spaces.
        let first = taken[..end].iter().rposition(|&t| t).map_or(0, |i| i + 1);
        let first = if word.quoted { end } else { first };
        let candidate = (first..=end).find_map(|start| {
            let whole = words[end].range.end;
            let text =
                if start == end { word.text.clone() } else { message[words[start].range.start..whole].to_owned() };
            let path = expand(text.trim_end_matches(PUNCTUATION), home);
            exists(&path).then_some((start, path))
        });
        match candidate {
            Some((start, path)) => {
                taken[start..=end].fill(true);
                mentions.found.push(path);
            }
            None => mentions.missing.push(word.text.trim_end_matches(PUNCTUATION).to_owned()),
        }
    }
    let kept = words.iter().zip(&taken).filter(|(_, taken)| !**taken).map(|(word, _)| &message[word.range.clone()]);
    mentions.message = kept.collect::<Vec<_>>().join(" ");
    mentions
}

const PUNCTUATION: [char; 6] = ['.', ',', ';', ':', '!', '?'];

#[derive(Debug)]
struct Word {
    text: String,
    range: std::ops::Range<usize>,
    quoted: bool,
}

/// Words at white space; quotes and backslashes keep spaces inside. An apostrophe inside a word is no quote.
fn split(message: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut chars = message.char_indices().peekable();
    while let Some(&(start, first)) = chars.peek() {
        if first.is_whitespace() {
            chars.next();
            continue;
        }
        let closing = matches!(first, '"' | '\'').then(|| message[start + 1..].find(first)).flatten();
        if let Some(length) = closing {
            let end = start + 1 + length + 1;
            words.push(Word { text: message[start + 1..end - 1].to_owned(), range: start..end, quoted: true });
            while chars.next_if(|&(at, _)| at < end).is_some() {}
            continue;
        }
        let mut text = String::new();
        let mut end = start;
        while let Some((at, c)) = chars.next_if(|&(_, c)| !c.is_whitespace()) {
            end = at + c.len_utf8();
            match chars.peek() {
                Some(&(at, escaped)) if c == '\\' && (escaped == ' ' || escaped == '\'' || escaped == '"') => {
                    text.push(escaped);
                    end = at + escaped.len_utf8();
                    chars.next();
                }
                _ => text.push(c),
            }
        }
        words.push(Word { text, range: start..end, quoted: false });
    }
    words
}

fn is_picture(text: &str) -> bool {
    let lower = text.trim_end_matches(PUNCTUATION).to_ascii_lowercase();
    lower.rsplit_once('.').is_some_and(|(stem, extension)| !stem.is_empty() && EXTENSIONS.contains(&extension))
}

fn expand(text: &str, home: Option<&Path>) -> PathBuf {
    let text = text.strip_prefix("file://").unwrap_or(text);
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, text: &str, found: &[&str], missing: &[&str]) {
        let files = ["cat.png", "my pictures/red ball.jpg", "/home/ana/a b.webp", "/home/ana/dog.JPG", "it's.png"];
        let exists = |path: &Path| files.iter().any(|file| Path::new(file) == path);
        let mentions = find(message, Some(Path::new("/home/ana")), exists);
        let expected = Mentions {
            message: text.to_owned(),
            found: found.iter().map(PathBuf::from).collect(),
            missing: missing.iter().map(|&m| m.to_owned()).collect(),
        };
        assert_eq!(mentions, expected, "{message}");
    }

    #[test]
    fn paths_inside_messages() {
        check("hello there", "hello there", &[], &[]);
        check("what is in cat.png?", "what is in", &["cat.png"], &[]);
        check("cat.png what is this", "what is this", &["cat.png"], &[]);
        check("look: \"my pictures/red ball.jpg\" nice", "look: nice", &["my pictures/red ball.jpg"], &[]);
        check("look 'my pictures/red ball.jpg'", "look", &["my pictures/red ball.jpg"], &[]);
        check(r"see my\ pictures/red\ ball.jpg now", "see now", &["my pictures/red ball.jpg"], &[]);
        check("see my pictures/red ball.jpg now", "see now", &["my pictures/red ball.jpg"], &[]);
        check("~/dog.JPG and ~/a b.webp", "and", &["/home/ana/dog.JPG", "/home/ana/a b.webp"], &[]);
        check("file:///home/ana/dog.JPG", "", &["/home/ana/dog.JPG"], &[]);
        check("don't show it's.png", "don't show", &["it's.png"], &[]);
        check("what about dog.png?", "what about dog.png?", &[], &["dog.png"]);
        check("compare \"no such.png\" cat.png", "compare \"no such.png\"", &["cat.png"], &["no such.png"]);
        check("is .png better than .jpg?", "is .png better than .jpg?", &[], &[]);
        check("  ünïcode   words ", "ünïcode words", &[], &[]);
    }
}

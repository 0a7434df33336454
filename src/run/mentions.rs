//! Finds the pictures that a message names, however their paths are written, and takes the paths out of the text.
//!
//! A path that leads to something is a mention wherever it stands. One that leads nowhere is one only where a person
//! would mean a picture by it: not in code, in patterns like `*.png` or in addresses of the web.

mod borders;
mod spelling;

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::formats::{self, Format};

/// The longest path that is looked for, in bytes.
const MAX_PATH: usize = 4096;

/// So many places in front of an extension are tried as the beginning of a path.
const MAX_STARTS: usize = 128;

/// Where addresses without a scheme end mostly.
const DOMAINS: &[&str] =
    &["com", "org", "net", "io", "dev", "app", "edu", "gov", "info", "co", "ai", "de", "uk", "fr", "cn", "jp"];

/// A message and the pictures it named.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// The message without the paths in `found`.
    pub message: String,
    /// What is there, in order, each once.
    pub found: Vec<PathBuf>,
    /// What is named as a picture but is not there, as typed.
    pub missing: Vec<String>,
    /// Addresses of pictures on the web, as typed; they stay in the message.
    pub addresses: Vec<String>,
}

/// Splits a message into text and paths; `exists` says which paths lead to something, `home` replaces `~`.
pub fn find(message: &str, home: Option<&Path>, exists: impl Fn(&Path) -> bool) -> Mentions {
    let mut mentions = Mentions::default();
    let mut removed: Vec<Range<usize>> = Vec::new();
    let scan = Scan { message, home, exists: &exists, fences: fences(message) };
    let mut floor = 0;
    for end in scan.ends() {
        if end.at <= floor {
            continue;
        }
        if let Some(address) = scan.address(end.at) {
            if !matches!(end.format, Some(Format::Other(_)) | None) && !mentions.addresses.contains(&address) {
                mentions.addresses.push(address);
            }
        } else if let Some((range, path)) = scan.existing(floor, end.at).filter(|(range, _)| !scan.is_code(range)) {
            let range = scan.with_enclosing(range, floor);
            floor = range.end;
            removed.push(range);
            if !mentions.found.contains(&path) {
                mentions.found.push(path);
            }
        } else if matches!(end.format, Some(Format::Readable | Format::Picture(_)))
            && let Some(name) = scan.missing(floor, end.at)
            && !mentions.missing.contains(&name)
        {
            mentions.missing.push(name);
        }
    }
    mentions.message = without(message, &removed);
    mentions
}

/// The end of what may be a path.
struct End {
    /// Behind its last byte.
    at: usize,
    /// What its extension says; `None` for a URI without one.
    format: Option<Format>,
}

struct Scan<'a, F> {
    message: &'a str,
    home: Option<&'a Path>,
    exists: &'a F,
    /// Blocks of code.
    fences: Vec<Range<usize>>,
}

impl<F: Fn(&Path) -> bool> Scan<'_, F> {
    /// All places where a path may end, in order.
    fn ends(&self) -> Vec<End> {
        let mut ends = Vec::new();
        for (dot, _) in self.message.match_indices('.') {
            let rest = &self.message[dot + 1..];
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let at = dot + 1 + length;
            let Some(format) = formats::of_extension(&rest[..length]) else { continue };
            let before = self.message[..dot].chars().next_back();
            let has_name = before.is_some_and(|c| !c.is_whitespace() && !std::path::is_separator(c));
            if has_name && borders::may_follow(&self.message[at..]) {
                ends.push(End { at, format: Some(format) });
            }
        }
        // File managers drop URIs, whose extension need not be one of a picture.
        for (start, _) in self.message.match_indices(':') {
            let Some(start) = start.checked_sub(4).filter(|&start| self.message.is_char_boundary(start)) else {
                continue;
            };
            let uri = &self.message[start..];
            if !spelling::is_file_uri(uri) {
                continue;
            }
            let is_end = |c: char| c.is_whitespace() || (borders::is_enclosing(c) && c != '\'') || c == ',' || c == ';';
            let uri = uri.split(is_end).next().unwrap_or(uri).trim_end_matches(borders::ends_sentence);
            let at = start + uri.len();
            if !ends.iter().any(|end| end.at == at) {
                ends.push(End { at, format: None });
            }
        }
        ends.sort_by_key(|end| end.at);
        ends
    }

    /// The longest path that ends here, begins not before `floor`, and leads to something.
    fn existing(&self, floor: usize, end: usize) -> Option<(Range<usize>, PathBuf)> {
        let line = self.message[floor..end].rfind('\n').map_or(floor, |at| floor + at + 1);
        let mut starts: Vec<usize> = Vec::new();
        let mut next = None;
        for (at, c) in self.message[line..end].char_indices().rev() {
            let at = line + at;
            // Behind a border; or at it, where it is a quote of a shell or part of a name.
            if borders::may_precede(c)
                && let Some(next) = next
            {
                starts.push(next);
            }
            if borders::is_quote(c) || borders::is_unspaced(c) {
                starts.push(at);
            }
            next = (!c.is_whitespace()).then_some(at);
            if end - at > MAX_PATH || starts.len() > MAX_STARTS {
                next = None;
                break;
            }
        }
        starts.extend(next);
        starts.sort_unstable();
        starts.dedup();
        starts.into_iter().find_map(|start| {
            let mut paths = spelling::paths(&self.message[start..end], self.home).into_iter();
            paths.find(|path| (self.exists)(path)).map(|path| (start..end, path))
        })
    }

    /// The range of a path with the brackets and quotes around it, and with the Markdown of a picture or of a link, whose
    /// text is kept.
    fn with_enclosing(&self, range: Range<usize>, floor: usize) -> Range<usize> {
        let Range { mut start, mut end } = range;
        // A quote that the path itself began with.
        let opened = self.message[start..end].chars().next().filter(|&c| borders::is_quote(c));
        if let (Some(open), Some(next)) = (opened, self.message[end..].chars().next())
            && borders::is_pair(open, next)
        {
            end += next.len_utf8();
        }
        loop {
            let before = self.message[floor..start].chars().next_back();
            let after = self.message[end..].chars().next();
            if let (Some(open), Some(close)) = (before, after)
                && borders::is_pair(open, close)
            {
                start -= open.len_utf8();
                end += close.len_utf8();
                continue;
            }
            // French puts spaces inside.
            let (wide, far) = (self.message[floor..start].trim_end(), self.message[end..].trim_start());
            if wide.ends_with('«') && far.starts_with('»') {
                start = floor + wide.len() - '«'.len_utf8();
                end = self.message.len() - far.len() + '»'.len_utf8();
                continue;
            }
            if before == Some('@') {
                start -= 1;
                continue;
            }
            // `![text](path "title")`
            let titled = self.message[end..].trim_start().strip_prefix(['"', '\'']);
            if before == Some('(')
                && self.message[floor..start - 1].ends_with(']')
                && let Some(titled) = titled
                && let Some(close) = titled.find(')')
                && titled[..close].ends_with(['"', '\''])
            {
                start -= 1;
                end = self.message.len() - titled.len() + close + 1;
            }
            break;
        }
        let is_target = self.message[start..end].starts_with('(') && self.message[floor..start].ends_with(']');
        if is_target && let Some(open) = self.message[floor..start].rfind('[') {
            let open = floor + open;
            if self.message[floor..open].ends_with('!') {
                start = open - 1;
            }
        }
        start..end
    }

    /// The address on the web that this is the end of.
    fn address(&self, end: usize) -> Option<String> {
        let is_border = |c: char| c.is_whitespace() || (borders::is_enclosing(c) && c != '\'');
        let start = self.message[..end].char_indices().rev().find(|&(_, c)| is_border(c));
        let word = &self.message[start.map_or(0, |(at, c)| at + c.len_utf8())..end];
        if let Some((before, rest)) = word.split_once("://") {
            let scheme = before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
            return (!scheme.eq_ignore_ascii_case("file")).then(|| format!("{scheme}://{rest}"));
        }
        let (host, _) = word.split_once('/')?;
        let (name, domain) = host.rsplit_once('.')?;
        let is_host = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && (name.starts_with("www.") || DOMAINS.contains(&domain));
        // There may be a folder of that name.
        (is_host && !(self.exists)(Path::new(host))).then(|| word.to_owned())
    }

    /// The name that ends here and leads nowhere, if a person would mean a picture by it.
    fn missing(&self, floor: usize, end: usize) -> Option<String> {
        let line = self.message[floor..end].rfind('\n').map_or(floor, |at| floor + at + 1);
        let mut start = line + borders::word_start(&self.message[line..end], end - line);
        // All that stands between quotes, spaces as well; between backticks that would be code.
        let after = self.message[end..].chars().next().filter(|&c| c != '`');
        let opener = after.into_iter().flat_map(borders::openers).filter_map(|open| {
            let at = self.message[line..end].rfind(open)?;
            Some(line + at + open.len_utf8())
        });
        if let Some(opened) = opener.max() {
            start = start.min(opened);
        }
        let name = &self.message[start..end];
        let is_text = self.is_code(&(start..end)) || self.is_argument(line, start) || !is_name(name);
        (!is_text).then(|| name.to_owned())
    }

    /// Whether a path stands in a block of code, or between backticks that enclose more than it.
    fn is_code(&self, range: &Range<usize>) -> bool {
        if self.fences.iter().any(|fence| fence.contains(&range.end)) {
            return true;
        }
        let (before, after) = (&self.message[..range.start], &self.message[range.end..]);
        let line = &before[before.rfind('\n').map_or(0, |at| at + 1)..];
        let is_alone = line.ends_with('`') && after.starts_with('`');
        line.matches('`').count() % 2 == 1 && after.contains('`') && !is_alone
    }

    /// Whether the name at `start` is a value or an argument of a program's text: `open("a.png")`, `src="a.png"`.
    fn is_argument(&self, line: usize, start: usize) -> bool {
        let before = self.message[line..start].trim_end_matches(borders::is_quote);
        let is_quoted = before.len() < start - line;
        let spaced = before.trim_end();
        let is_inside = |open: char, close: char| before.matches(open).count() > before.matches(close).count();
        match spaced.chars().next_back() {
            Some('=') => true,
            Some('(') => {
                let function = &spaced[..spaced.len() - 1];
                let is_called = function.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
                (is_quoted && is_called) || function.ends_with("url")
            }
            Some('[') => is_quoted,
            Some(',') => is_quoted && (is_inside('[', ']') || is_inside('(', ')')),
            Some(':') => {
                is_quoted && spaced.ends_with(['"', '\'', ':']) && spaced[..spaced.len() - 1].ends_with(['"', '\''])
            }
            _ => false,
        }
    }
}

/// Whether this can be a file's name: letters or digits in front of its extension, and nothing of a pattern.
fn is_name(name: &str) -> bool {
    let last = name.rsplit(std::path::is_separator).next().unwrap_or(name);
    let stem = last.rsplit_once('.').map_or("", |(stem, _)| stem);
    stem.contains(char::is_alphanumeric) && !name.contains(['*', '{', '}', '<', '>', '|', '$', '\n'])
}

/// Blocks between lines of three backticks; one that is not closed ends with the message.
fn fences(message: &str) -> Vec<Range<usize>> {
    let marks: Vec<usize> = message.match_indices("```").map(|(at, _)| at).collect();
    marks.chunks(2).map(|pair| pair[0]..pair.get(1).copied().unwrap_or(message.len())).collect()
}

/// The message without these ranges, the commas behind them, and the spaces that would be left over.
fn without(message: &str, removed: &[Range<usize>]) -> String {
    let Some(first) = removed.first() else { return message.to_owned() };
    let mut text = message[..first.start].to_owned();
    let ends = removed.iter().skip(1).map(|range| range.start).chain([message.len()]);
    for (range, end) in removed.iter().zip(ends) {
        join(&mut text, message[range.end..end].trim_start_matches(borders::separates));
    }
    match text.contains(char::is_alphanumeric) {
        true => text.trim().to_owned(),
        false => String::new(),
    }
}

/// Appends what followed a path that is gone.
fn join(text: &mut String, after: &str) {
    let is_space = |c: char| c == ' ' || c == '\t';
    let kept = text.trim_end_matches(is_space).len();
    let spaced = after.trim_start_matches(is_space);
    let was_spaced = kept < text.len() || spaced.len() < after.len();
    text.truncate(kept);
    if text.trim().is_empty() {
        // The sentence began with the path.
        *text += after.trim_start_matches(|c: char| is_space(c) || borders::separates(c) || borders::ends_sentence(c));
        return;
    }
    let is_attached = spaced.starts_with(|c: char| c == '\n' || borders::ends_sentence(c) || borders::closes(c));
    let is_begun = text.ends_with(|c: char| c == '\n' || borders::opens(c));
    if was_spaced && !is_attached && !spaced.is_empty() && !is_begun {
        text.push(' ');
    }
    *text += spaced;
}

#[cfg(test)]
mod tests;

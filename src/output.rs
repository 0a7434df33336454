//! The only place that writes to stdout and stderr: cleans untrusted text, and survives closed pipes and full disks.
//!
//! Names from bundles, checkpoints, templates and paths, and a model's own text, may hold escape sequences that
//! would act on a terminal: write to the clipboard, rename windows, hide what follows. Nothing but line breaks and
//! tabs passes. What goes to stderr is a courtesy: where it cannot be written, work goes on. What goes to stdout is
//! the result: where that cannot be written, the command fails, quietly if its reader has merely left.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use indicatif::ProgressDrawTarget;

/// A result could not be written to stdout.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Whoever read it has enough, as in `dwindle inspect … | head`.
    #[error("stdout is closed")]
    Closed,
    /// The disk behind it is full, or worse.
    #[error("cannot write to stdout: {0}")]
    Failed(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Error::Closed,
            _ => Error::Failed(error),
        }
    }
}

/// Writes a formatted message to stderr, and a line break.
macro_rules! note {
    ($($text:tt)*) => { $crate::output::message(format_args!($($text)*)) };
}
pub(crate) use note;

/// Writes a message to stderr, and a line break. Failures are ignored: there is nobody left to hear of them.
pub fn message(text: impl Display) {
    let mut line = clean(&text.to_string()).into_owned();
    line.push('\n');
    write_to_stderr(line.as_bytes());
}

fn write_to_stderr(bytes: &[u8]) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
}

/// Writes text to stdout, and a line break.
///
/// # Errors
/// [`Error`].
pub fn line(text: impl Display) -> Result<(), Error> {
    let mut line = clean(&text.to_string()).into_owned();
    line.push('\n');
    write_to_stdout(&line)
}

/// Writes serialized JSON to stdout, and a line break.
///
/// # Errors
/// [`Error`].
pub fn json(text: &str) -> Result<(), Error> {
    write_to_stdout(&format!("{}\n", json_text(text.trim_end())))
}

fn write_to_stdout(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Prints what the command line's parser says, help or complaint, and gives the exit code.
pub fn usage(error: &clap::Error) -> ExitCode {
    match error.use_stderr() {
        // It repeats arguments, which a shell may have taken from the names of files.
        true => write_to_stderr(clean(&error.render().to_string()).as_bytes()),
        // Help is our own text, in colours where it goes to a terminal.
        false => error.print().unwrap_or_default(),
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
}

/// A model's answer on its way to stdout.
///
/// Each character is judged alone, so it does not matter how the text is cut into pieces: an escape sequence loses
/// the character that would make it act, and its harmless rest stays visible.
#[derive(Debug, Default)]
pub struct Answer {
    failed: Option<Error>,
}

impl Answer {
    /// Writes a piece at once; `false` once stdout has failed, when nothing more is written.
    pub fn piece(&mut self, text: &str) -> bool {
        if self.failed.is_none() {
            self.failed = write_to_stdout(&replaced(text)).err();
        }
        self.failed.is_none()
    }

    /// Ends the answer with a line break.
    ///
    /// # Errors
    /// The first [`Error`] of any piece.
    pub fn finish(mut self) -> Result<(), Error> {
        self.piece("\n");
        self.failed.map_or(Ok(()), Err)
    }

    /// Ends it as it is.
    ///
    /// # Errors
    /// The first [`Error`] of any piece.
    pub fn cut(self) -> Result<(), Error> {
        self.failed.map_or(Ok(()), Err)
    }
}

/// Text of an answer without control characters.
fn replaced(text: &str) -> Cow<'_, str> {
    match text.contains(acts) {
        true => text.chars().map(|c| if acts(c) { char::REPLACEMENT_CHARACTER } else { c }).collect(),
        false => text.into(),
    }
}

/// Leaves the line that the user was typing when the program had to end, and the mode in which terminals mark what is
/// pasted.
pub fn leave_line() {
    if io::stdout().is_terminal() {
        let _ = write_to_stdout("\u{1b}[?2004l\n");
    }
}

/// Where progress bars are drawn: stderr, if a person reads it. Failures to draw are ignored.
pub fn bars() -> ProgressDrawTarget {
    match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    }
}

/// Log lines, which repeat names as messages do.
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_to_stderr(clean(&String::from_utf8_lossy(bytes)).as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A name as a part of one line: line breaks and tabs are escaped, too.
pub fn name(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.is_control() || reorders(c))
}

/// Text in which nothing acts on a terminal: control characters and those that change the direction of writing are
/// shown as escapes of Rust, like `\u{1b}`.
fn clean(text: &str) -> Cow<'_, str> {
    escaped(text, |c| acts(c) || reorders(c))
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool + Copy) -> Cow<'_, str> {
    if !text.contains(is_escaped) {
        return text.into();
    }
    let mut result = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_escaped(c) {
            true => result.extend(c.escape_unicode()),
            false => result.push(c),
        }
    }
    result.into()
}

/// JSON in which nothing acts on a terminal: serde escapes the lower control characters only. All others stand inside
/// strings, so escaping them changes no value.
fn json_text(text: &str) -> Cow<'_, str> {
    let is_escaped = |c: char| (c.is_control() && c != '\n') || reorders(c);
    if !text.contains(is_escaped) {
        return text.into();
    }
    let mut result = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) {
            // All of them lie in the basic plane. Writing to a string does not fail.
            let _ = write!(result, "\\u{:04x}", u32::from(c));
        } else {
            result.push(c);
        }
    }
    result.into()
}

/// Control characters of ASCII and Latin-1, `DEL` and the one-character forms of escape sequences among them.
fn acts(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

/// Overrides and isolates of the direction of writing, which make a name look like another.
fn reorders(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_show_what_would_act() {
        for (text, expected) in [
            ("plain, größer\tthan\nbefore", "plain, größer\tthan\nbefore"),
            ("\u{1b}]52;c;ZXZpbA==\u{7}.png", "\\u{1b}]52;c;ZXZpbA==\\u{7}.png"),
            ("\u{9b}2J\u{9d}0;title\u{9c}\u{7f}", "\\u{9b}2J\\u{9d}0;title\\u{9c}\\u{7f}"),
            ("cat\u{202e}gnp.exe\u{2069}", "cat\\u{202e}gnp.exe\\u{2069}"),
            ("over\rwritten\u{8}\u{0}", "over\\u{d}written\\u{8}\\u{0}"),
            ("عربي 漢字 👩‍👩‍👧", "عربي 漢字 👩‍👩‍👧"),
        ] {
            assert_eq!(clean(text), expected);
            assert_eq!(clean(&clean(text)), expected, "cleaning twice changes nothing");
        }
        assert_eq!(name("two\nlines\tand \u{1b}[31mred"), "two\\u{a}lines\\u{9}and \\u{1b}[31mred");
    }

    #[test]
    fn answers_lose_escapes_wherever_they_are_cut() {
        let text = "a\tb\n\u{1b}[31mred\u{7}\u{9b}2J\u{1b}]52;c;eA==\u{1b}\\ end\r\n";
        let whole = replaced(text).into_owned();
        assert_eq!(whole, "a\tb\n\u{fffd}[31mred\u{fffd}\u{fffd}2J\u{fffd}]52;c;eA==\u{fffd}\\ end\u{fffd}\n");
        for at in (0..text.len()).filter(|&at| text.is_char_boundary(at)) {
            let (first, second) = text.split_at(at);
            assert_eq!(format!("{}{}", replaced(first), replaced(second)), whole, "cut at {at}");
        }
    }

    #[test]
    fn json_stays_the_same_value() {
        let hostile = "\u{1b}]0;x\u{7}\u{9b}\u{7f}\u{202e}\"\\\n\t é";
        let value = serde_json::json!({ hostile: [hostile, 1, null] });
        for text in [format!("{value:#}"), value.to_string()] {
            let shown = json_text(&text);
            assert!(!shown.contains(|c: char| (c.is_control() && c != '\n') || reorders(c)), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}

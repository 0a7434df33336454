//! The interactive chat: lines in, streamed answers out, pictures by command or by naming their path.

use std::io::{self, BufRead, IsTerminal, Read};

use anyhow::Result;
use dwindle_runtime::chat::Finish;
use dwindle_runtime::{Conversation, Error};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Config, Editor};

use super::attached::Attached;
use super::{Options, interrupt, mentions, pictures};
use crate::output::{self, note};

const HELP: &str = "\
/image PATH   add a picture to your next message; or just name its path in the message
/reset        forget the conversation
/help         this list
/exit         leave (or Ctrl-D)
Ctrl-C stops an answer.";

/// The longest line that is read from a pipe; more than any context holds.
const MOST_LINE_BYTES: u64 = 16 << 20;

/// Chats until the input ends. Where stdin is no terminal, each of its lines is a message.
pub fn interactive(conversation: &mut Conversation, options: &Options) -> Result<()> {
    let mut chat = Chat { conversation, waiting: Attached::load(&options.image)?, forgets: false };
    if io::stdin().is_terminal() {
        chat.greet();
        chat.read_terminal()
    } else {
        chat.read_pipe()
    }
}

struct Chat<'a> {
    conversation: &'a mut Conversation,
    /// Pictures that go with the next message.
    waiting: Attached,
    /// Whether the user knows that turns are forgotten.
    forgets: bool,
}

/// Whether to go on reading.
#[derive(PartialEq)]
enum Next {
    Read,
    Leave,
}

impl Chat<'_> {
    fn greet(&self) {
        note!(
            "dwindle {} · {} · {}",
            env!("CARGO_PKG_VERSION"),
            self.conversation.info().models.join(" + "),
            self.conversation.info().device
        );
        note!("Type a message; name a picture's path in it to show one. /help lists the commands.");
    }

    fn read_terminal(&mut self) -> Result<()> {
        let config = Config::builder().auto_add_history(true).build();
        let mut editor: Editor<(), DefaultHistory> = Editor::with_config(config)?;
        loop {
            let prompt = match self.waiting.len() {
                0 => "> ".to_owned(),
                n => format!("[{n} picture{}] > ", if n == 1 { "" } else { "s" }),
            };
            match editor.readline(&prompt) {
                Ok(line) => {
                    if self.line(&line)? == Next::Leave {
                        return Ok(());
                    }
                }
                Err(ReadlineError::Interrupted) => note!("(Ctrl-D or /exit leaves)"),
                Err(ReadlineError::Eof) => return Ok(()),
                Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => note!("{NOT_TEXT}"),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read_pipe(&mut self) -> Result<()> {
        let mut asked = false;
        let mut input = io::stdin().lock();
        while let Some(line) = read_line(&mut input)? {
            let line = match line {
                Line::Text(line) if line.trim().is_empty() => continue,
                Line::Text(line) => line,
                Line::NotText => {
                    note!("{NOT_TEXT}");
                    continue;
                }
                Line::Long => {
                    note!("A line of more than {} MiB was not sent.", MOST_LINE_BYTES >> 20);
                    continue;
                }
            };
            asked = true;
            if self.line(&line)? == Next::Leave {
                return Ok(());
            }
        }
        // `run --image x.png </dev/null`: the picture is the question.
        if !asked && !self.waiting.is_empty() {
            self.line("")?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<Next> {
        let line = line.trim();
        match line.split_once(char::is_whitespace).unwrap_or((line, "")) {
            ("/exit" | "/quit", _) => return Ok(Next::Leave),
            ("/help", _) => note!("{HELP}"),
            ("/reset", _) => {
                self.conversation.reset()?;
                self.waiting.clear();
                self.forgets = false;
                note!("The conversation begins anew.");
            }
            ("/image", "") => note!("Which picture? /image PATH"),
            ("/image", path) => self.add_named_picture(path),
            ("", _) if self.waiting.is_empty() => {}
            // A path may begin with a slash, too; a command has no second one.
            (word, _) if word.starts_with('/') && !word[1..].contains(['/', '.']) => {
                note!("There is no command {word}. /help lists the commands.");
            }
            _ => self.message(line)?,
        }
        Ok(Next::Read)
    }

    fn message(&mut self, line: &str) -> Result<()> {
        // What a model without eyes is told about files is a question like any other.
        if !self.conversation.info().sees {
            return self.answer(line);
        }
        match self.waiting.take_from(line) {
            Ok(message) => self.answer(&message),
            Err(error) => {
                note!("{error:#}.");
                note!("The message was not sent; press ↑ to edit it.");
                Ok(())
            }
        }
    }

    fn answer(&mut self, message: &str) -> Result<()> {
        interrupt::take();
        let mut answer = output::Answer::default();
        let mut print = |text: &str| {
            if !answer.piece(text) {
                interrupt::stop();
            }
        };
        let pictures = self.waiting.pictures();
        let result = self.conversation.ask(message, pictures, &mut print, interrupt::flag());
        interrupt::take();
        match result {
            Ok(turn) => {
                answer.finish()?;
                self.waiting.clear();
                if turn.reshown > 0 {
                    note!("(This model sees each of several pictures in less detail; earlier ones were read again.)");
                }
                if turn.forgotten > 0 && !self.forgets {
                    self.forgets = true;
                    note!(
                        "(The conversation no longer fits into the context of {} positions: from now on, its oldest turns are \
                         forgotten. /reset begins anew.)",
                        self.conversation.info().context
                    );
                }
                match turn.finish {
                    Finish::Length => note!("(cut at the limit of tokens)"),
                    Finish::Cancelled => note!("(stopped)"),
                    Finish::Stop => {}
                }
                Ok(())
            }
            Err(error) if ends_chat(&error) => Err(error.into()),
            Err(error) => {
                answer.cut()?;
                note!("{:#}", anyhow::Error::from(error));
                Ok(())
            }
        }
    }

    fn add_named_picture(&mut self, text: &str) {
        if !self.conversation.info().sees {
            note!("This model sees no pictures.");
            return;
        }
        // As a mention, so that quotes, escapes and `~` mean the same everywhere; else literally.
        let mentions = mentions::find(text, pictures::home().as_deref(), pictures::exists);
        let paths = if mentions.found.is_empty() { vec![text.trim().into()] } else { mentions.found };
        for path in paths {
            match self.waiting.add(&path) {
                Ok(()) => note!("{} goes with your next message.", path.display()),
                Err(error) => note!("{error:#}. Try another one?"),
            }
        }
    }
}

/// What is said of a line that is not UTF-8.
const NOT_TEXT: &str = "A line that is not UTF-8 text was not sent.";

/// A line of a pipe, without its end.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Text(String),
    NotText,
    /// Longer than [`MOST_LINE_BYTES`].
    Long,
}

/// The next line, `None` at the end.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    if input.take(MOST_LINE_BYTES).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.len() as u64 == MOST_LINE_BYTES && bytes.last() != Some(&b'\n') {
        input.skip_until(b'\n')?;
        return Ok(Some(Line::Long));
    }
    Ok(Some(String::from_utf8(bytes).map_or(Line::NotText, Line::Text)))
}

/// What is wrong with one message need not end the chat; a device that is gone does.
fn ends_chat(error: &Error) -> bool {
    matches!(error, Error::DeviceLost { .. } | Error::OutOfMemory { .. } | Error::Refused { .. } | Error::Plan { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_not_text_are_lines_all_the_same() {
        let mut input = &b"Hi\n\xff\xfe\nGr\xc3\xbc\xc3\x9fe\r\n\nlast"[..];
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).unwrap() {
            lines.push(line);
        }
        let text = |text: &str| Line::Text(text.to_owned());
        assert_eq!(lines, [text("Hi\n"), Line::NotText, text("Grüße\r\n"), text("\n"), text("last")]);
    }

    #[test]
    fn lines_without_end_are_not_kept() {
        let mut input = io::BufReader::new(io::repeat(b'x').take(MOST_LINE_BYTES + 5).chain(&b"\nHi\n"[..]));
        assert_eq!(read_line(&mut input).unwrap(), Some(Line::Long));
        assert_eq!(read_line(&mut input).unwrap(), Some(Line::Text("Hi\n".to_owned())));
        assert_eq!(read_line(&mut input).unwrap(), None);
    }
}

//! The interactive chat: lines in, streamed answers out, pictures by command or by naming their path.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::Result;
use dwindle_runtime::chat::Finish;
use dwindle_runtime::image::Picture;
use dwindle_runtime::{Conversation, Error};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Config, Editor};

use super::{Options, interrupt, mentions, pictures, terminal};

const HELP: &str = "\
/image PATH   add a picture to your next message; or just name its path in the message
/reset        forget the conversation
/help         this list
/exit         leave (or Ctrl-D)
Ctrl-C stops an answer.";

/// What a message without words asks about its pictures.
const DEFAULT_QUESTION: &str = "What do you see?";

/// Chats until the input ends. Where stdin is no terminal, each of its lines is a message.
pub fn interactive(conversation: &mut Conversation, options: &Options) -> Result<()> {
    let mut chat = Chat { conversation, waiting: Vec::new() };
    for path in &options.image {
        chat.add_picture(path)?;
    }
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
    waiting: Vec<Picture>,
}

/// Whether to go on reading.
#[derive(PartialEq)]
enum Next {
    Read,
    Leave,
}

impl Chat<'_> {
    fn greet(&self) {
        eprintln!(
            "dwindle {} · {} · {}",
            env!("CARGO_PKG_VERSION"),
            self.conversation.model_names().join(" + "),
            self.conversation.device_name()
        );
        eprintln!("Type a message; name a picture's path in it to show one. /help lists the commands.");
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
                Err(ReadlineError::Interrupted) => eprintln!("(Ctrl-D or /exit leaves)"),
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read_pipe(&mut self) -> Result<()> {
        let mut asked = false;
        for line in io::stdin().lines() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
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
            ("/help", _) => eprintln!("{HELP}"),
            ("/reset", _) => {
                self.conversation.reset()?;
                self.waiting.clear();
                eprintln!("The conversation begins anew.");
            }
            ("/image", "") => eprintln!("Which picture? /image PATH"),
            ("/image", path) => self.add_named_picture(path),
            ("", _) if self.waiting.is_empty() => {}
            // A path may begin with a slash, too; a command has no second one.
            (word, _) if word.starts_with('/') && !word[1..].contains(['/', '.']) => {
                eprintln!("There is no command {word}. /help lists the commands.");
            }
            _ => self.message(line)?,
        }
        Ok(Next::Read)
    }

    fn message(&mut self, line: &str) -> Result<()> {
        let mentions = mentions::find(line, pictures::home().as_deref(), Path::is_file);
        if !mentions.missing.is_empty() {
            for path in &mentions.missing {
                eprintln!(
                    "I cannot find the picture {path}. Is the path right? (Relative paths start at {}.)",
                    current_directory()
                );
            }
            eprintln!("The message was not sent; press ↑ to edit it.");
            return Ok(());
        }
        for path in &mentions.found {
            if !self.try_add_picture(path) {
                return Ok(());
            }
        }
        let message = match mentions.message.trim() {
            "" => DEFAULT_QUESTION,
            text => text,
        };
        self.answer(message)
    }

    fn answer(&mut self, message: &str) -> Result<()> {
        interrupt::take();
        let mut out = io::stdout().lock();
        let mut failed = Ok(());
        let mut print = |text: &str| {
            if failed.is_ok() {
                failed = terminal::write_clean(&mut out, text).and_then(|()| out.flush());
            }
        };
        let images = std::mem::take(&mut self.waiting);
        let result = self.conversation.ask(message, &images, &mut print, interrupt::flag());
        failed?;
        interrupt::take();
        match result {
            Ok(turn) => {
                writeln!(out)?;
                match turn.finish {
                    Finish::Length => eprintln!("(cut at the limit of tokens)"),
                    Finish::Cancelled => eprintln!("(stopped)"),
                    Finish::Stop => {}
                }
                Ok(())
            }
            Err(error) if ends_chat(&error) => Err(error.into()),
            Err(error) => {
                self.waiting = images;
                eprintln!("{:#}", anyhow::Error::from(error));
                Ok(())
            }
        }
    }

    fn add_picture(&mut self, path: &Path) -> Result<()> {
        self.waiting.push(pictures::load(path)?);
        Ok(())
    }

    fn add_named_picture(&mut self, text: &str) {
        // As a mention, so that quotes, escapes and `~` mean the same everywhere; else literally.
        let mentions = mentions::find(text, pictures::home().as_deref(), Path::is_file);
        let paths = if mentions.found.is_empty() { vec![text.trim().into()] } else { mentions.found };
        for path in paths {
            if self.try_add_picture(&path) {
                eprintln!("{} goes with your next message.", path.display());
            }
        }
    }

    fn try_add_picture(&mut self, path: &Path) -> bool {
        let added = self.add_picture(path);
        if let Err(error) = &added {
            eprintln!("{error:#}. Try another one?");
        }
        added.is_ok()
    }
}

/// What is wrong with one message need not end the chat; a device that is gone does.
fn ends_chat(error: &Error) -> bool {
    matches!(error, Error::DeviceLost { .. } | Error::OutOfMemory { .. } | Error::Refused { .. } | Error::Plan { .. })
}

fn current_directory() -> String {
    std::env::current_dir().map_or_else(|_| "the current directory".to_owned(), |path| path.display().to_string())
}

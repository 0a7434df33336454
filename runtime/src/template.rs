//! A checkpoint's chat template: the conversation as one text, in Jinja as Hugging Face's libraries understand it.
//!
//! Templates come with downloaded checkpoints, so they are untrusted: reading and rendering them is bounded in time,
//! memory and native stack (`jinja::meter`), and they have no access to anything but the conversation.

mod date;
mod jinja;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::SystemTime;

use jinja::Program;
use jinja::fault::{Fault, Result as JinjaResult};
use jinja::meter::Meter;
use jinja::value::{Dict, Kind, ListBuilder, Make, Value};

/// A template cannot be read or refuses a conversation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is no Jinja.
    #[error("line {line} of the {what} is not understood: {reason}")]
    Syntax {
        /// `chat template` or `handover template`.
        what: &'static str,
        /// From 1; 0 where unknown.
        line: usize,
        /// What Jinja says.
        reason: String,
    },
    /// It fails.
    #[error("line {line} of the {what} fails: {reason}")]
    Render {
        /// `chat template` or `handover template`.
        what: &'static str,
        /// From 1; 0 where unknown.
        line: usize,
        /// What Jinja says.
        reason: String,
    },
    /// It refuses the conversation by `raise_exception`.
    #[error("the {what} refuses this conversation (line {line}): {message}")]
    Refused {
        /// `chat template` or `handover template`.
        what: &'static str,
        /// From 1; 0 where unknown.
        line: usize,
        /// What it says.
        message: String,
    },
    /// It runs or writes without end.
    #[error("the {what} was stopped{}: it takes more than {limit}", at(*line))]
    Endless {
        /// `chat template` or `handover template`.
        what: &'static str,
        /// From 1; 0 where unknown.
        line: usize,
        /// The limit that was reached.
        limit: String,
    },
    /// It leaves out what the user says.
    #[error("the chat template leaves out the user's message; its model cannot be talked to, only `--raw` works")]
    Silent,
}

impl Error {
    /// Why the template `what` cannot be read.
    fn of_source(what: &'static str, (line, fault): (u32, Fault)) -> Error {
        match fault {
            Fault::Limit(_) => Error::of_rendering(what, (line, fault)),
            Fault::Failed(reason) | Fault::Raised(reason) => {
                Error::Syntax { what, line: line as usize, reason: shown(&reason) }
            }
        }
    }

    /// Why the template `what` stopped.
    fn of_rendering(what: &'static str, (line, fault): (u32, Fault)) -> Error {
        let line = line as usize;
        match fault {
            Fault::Failed(reason) => Error::Render { what, line, reason: shown(&reason) },
            Fault::Raised(message) => Error::Refused { what, line, message: shown(&message) },
            Fault::Limit(limit) => Error::Endless { what, line, limit },
        }
    }
}

/// A text of the template's for a message: controls are escaped, because terminals obey them, and length is bounded.
fn shown(text: &str) -> String {
    const MOST: usize = 500;
    let mut result = String::new();
    for (index, letter) in text.chars().enumerate() {
        if index == MOST {
            result.push('…');
            break;
        }
        match letter {
            '\n' => result.push(letter),
            letter if letter.is_control() => result.extend(letter.escape_default()),
            letter => result.push(letter),
        }
    }
    result
}

fn at(line: usize) -> String {
    if line == 0 { String::new() } else { format!(" at line {line}") }
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions that stand before the conversation (`system`, `developer`).
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A function that was called, with its result.
    Tool,
}

/// One contribution to a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub text: String,
    /// How many pictures go with it; they stand before the text.
    pub pictures: usize,
    /// What a template can know of it besides: `tool_calls`, `tool_call_id`, `name`.
    pub fields: Vec<(&'static str, serde_json::Value)>,
}

impl Message {
    /// A message without pictures.
    pub fn new(role: Role, text: impl Into<String>) -> Message {
        Message { role, text: text.into(), pictures: 0, fields: Vec::new() }
    }
}

/// What a template wants a message's content to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// A string. Pictures' placeholders are written into it.
    Text,
    /// A list like `[{"type": "image"}, {"type": "text", "text": "…"}]`. The template writes the placeholders.
    Parts,
}

/// A chat template and how it wants to be used.
#[derive(Debug)]
pub struct Template {
    program: Program,
    now: SystemTime,
    special_tokens: BTreeMap<String, String>,
    placeholder: Option<String>,
    content: Content,
    /// Whether it takes messages of the role `system`.
    system: bool,
    /// Whether it writes definitions of tools.
    tools: bool,
}

const CHAT: &str = "chat template";
const HANDOVER: &str = "handover template";

impl Template {
    /// Reads a chat template and tries it out: whether it wants content as a list or as a string, and whether it
    /// knows the role `system`.
    ///
    /// `special_tokens` are the texts it may refer to (`bos_token`, …), `placeholder` is what stands for a picture, for models that
    /// see. `now` is the time that `strftime_now` gives, the same for the whole day, so that what is cached stays valid.
    ///
    /// # Errors
    /// [`Error::Syntax`]; what it says about a conversation of one short message; [`Error::Silent`].
    pub fn parse(
        source: &str,
        special_tokens: &BTreeMap<String, String>,
        placeholder: Option<&str>,
        now: SystemTime,
    ) -> Result<Template, Error> {
        let mut template = Template {
            program: Program::parse(source).map_err(|error| Error::of_source(CHAT, error))?,
            now,
            special_tokens: special_tokens.clone(),
            placeholder: placeholder.map(str::to_owned),
            content: Content::Text,
            system: true,
            tools: false,
        };
        template.content = template.find_content()?;
        // A template that does not know the role may refuse it or say nothing of it.
        const INSTRUCTION: &str = "Yk3 instruction";
        let messages = [Message::new(Role::System, INSTRUCTION), Message::new(Role::User, PROBE)];
        template.system = template.render(&messages, true).is_ok_and(|text| text.contains(INSTRUCTION));
        const TOOL: &str = "zq9_probe";
        let parameters = serde_json::json!({ "type": "object", "properties": {}, "required": [] });
        let function = serde_json::json!({ "name": TOOL, "description": "A probe.", "parameters": parameters });
        let tool = serde_json::json!({ "type": "function", "function": function });
        let asked = template.render_with(&messages[1..], std::slice::from_ref(&tool), true);
        template.tools = asked.is_ok_and(|text| text.contains(TOOL));
        Ok(template)
    }

    /// Gives it another time, if that is on another day: a conversation that goes on past midnight is read anew once, and programs that
    /// run for weeks do not tell of the day when they were started.
    pub fn set_day(&mut self, now: SystemTime) {
        let day =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
        if day(now) != day(self.now) {
            self.now = now;
        }
    }

    /// Whether it writes what tools there are: what differs with them is their names at least.
    pub fn knows_tools(&self) -> bool {
        self.tools
    }

    fn find_content(&mut self) -> Result<Content, Error> {
        let as_text = self.probe(Content::Text, 0);
        if matches!(as_text, Err(Error::Endless { .. })) {
            // Once is enough.
            return as_text.map(|_| Content::Text);
        }
        if let Some(placeholder) = self.placeholder.clone() {
            // Writing each picture's placeholder once, not the list as Python would print it.
            let count = |text: &str| text.matches(&placeholder).count();
            let (none, two) = (self.probe(Content::Parts, 0), self.probe(Content::Parts, 2));
            if none.is_ok_and(|none| two.is_ok_and(|two| count(&two) == count(&none) + 2)) {
                return Ok(Content::Parts);
            }
        }
        match as_text {
            Ok(_) => Ok(Content::Text),
            // What it says about a string is what people know from elsewhere.
            Err(error) => self.probe(Content::Parts, 0).map(|_| Content::Parts).map_err(|_| error),
        }
    }

    /// What it makes of a short message with content of this kind, if that is in it.
    fn probe(&mut self, content: Content, pictures: usize) -> Result<String, Error> {
        self.content = content;
        let text = self.render(&[Message { pictures, ..Message::new(Role::User, PROBE) }], true)?;
        if text.contains(PROBE) { Ok(text) } else { Err(Error::Silent) }
    }

    /// The conversation as text; with `generation_prompt` up to where the answer begins.
    ///
    /// Where the template does not know the role `system`, that message's text stands before the first user's,
    /// with an empty line between them.
    ///
    /// # Errors
    /// [`Error::Render`], [`Error::Refused`], [`Error::Endless`].
    pub fn render(&self, messages: &[Message], generation_prompt: bool) -> Result<String, Error> {
        self.render_with(messages, &[], generation_prompt)
    }

    /// [`Template::render`] with definitions of functions that the model may call, which a template finds in `tools`.
    ///
    /// # Errors
    /// [`Error::Render`], [`Error::Refused`], [`Error::Endless`].
    pub fn render_with(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        generation_prompt: bool,
    ) -> Result<String, Error> {
        let mut shown: Vec<Message> = Vec::with_capacity(messages.len());
        let mut instructions = String::new();
        for message in messages {
            let mut message = message.clone();
            match message.role {
                Role::System if !self.system => {
                    instructions += &message.text;
                    instructions += "\n\n";
                    continue;
                }
                Role::User => message.text.insert_str(0, &std::mem::take(&mut instructions)),
                _ => {}
            }
            shown.push(message);
        }
        let define = |meter: &Rc<Meter>| self.names(meter, &shown, tools, generation_prompt);
        self.program.render(self.now, define).map_err(|error| Error::of_rendering(CHAT, error))
    }

    /// What the template can refer to.
    fn names(
        &self,
        meter: &Rc<Meter>,
        messages: &[Message],
        tools: &[serde_json::Value],
        generation_prompt: bool,
    ) -> JinjaResult<Vec<(String, Value)>> {
        let mut list = ListBuilder::new(meter)?;
        for message in messages {
            list.push(self.message(meter, message)?)?;
        }
        let mut names = vec![
            ("messages".to_owned(), list.finish(Kind::List)?),
            ("add_generation_prompt".to_owned(), Value::Bool(generation_prompt)),
            ("tools".to_owned(), if tools.is_empty() { Value::None } else { meter.json_list(tools)? }),
            ("documents".to_owned(), Value::None),
        ];
        for (name, text) in &self.special_tokens {
            names.push((name.clone(), meter.str(text)?));
        }
        Ok(names)
    }

    fn message(&self, meter: &Rc<Meter>, message: &Message) -> JinjaResult<Value> {
        let content = match self.content {
            Content::Text => {
                let placeholder = self.placeholder.as_deref().unwrap_or("");
                let mut text = format!("{placeholder}\n").repeat(message.pictures);
                text += &message.text;
                meter.str(&text)?
            }
            Content::Parts => {
                let mut parts = ListBuilder::new(meter)?;
                for _ in 0..message.pictures {
                    parts.push(dict(meter, [("type", "image")])?)?;
                }
                parts.push(dict(meter, [("type", "text"), ("text", &message.text)])?)?;
                parts.finish(Kind::List)?
            }
        };
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        let mut result = Dict::new(meter)?;
        result.insert(meter, meter.str("role")?, meter.str(role)?)?;
        result.insert(meter, meter.str("content")?, content)?;
        for (name, value) in &message.fields {
            result.insert(meter, meter.str(name)?, meter.json(value)?)?;
        }
        Ok(result.finish())
    }
}

fn dict<const N: usize>(meter: &Rc<Meter>, entries: [(&str, &str); N]) -> JinjaResult<Value> {
    let mut dict = Dict::new(meter)?;
    for (key, value) in entries {
        dict.insert(meter, meter.str(key)?, meter.str(value)?)?;
    }
    Ok(dict.finish())
}

/// A message that stands nowhere else.
const PROBE: &str = "Xq7 probe";

/// How descriptions of pictures are told to a model that cannot see them.
#[derive(Debug)]
pub struct Handover {
    program: Program,
}

impl Handover {
    /// Reads a template of `descriptions` and `message`.
    ///
    /// # Errors
    /// [`Error::Syntax`].
    pub fn parse(source: &str) -> Result<Handover, Error> {
        Ok(Handover { program: Program::parse(source).map_err(|error| Error::of_source(HANDOVER, error))? })
    }

    /// The user's turn.
    ///
    /// # Errors
    /// [`Error::Render`], [`Error::Refused`], [`Error::Endless`].
    pub fn render(&self, descriptions: &[String], message: &str) -> Result<String, Error> {
        let define = |meter: &Rc<Meter>| {
            let mut list = ListBuilder::new(meter)?;
            for description in descriptions {
                list.push(meter.str(description)?)?;
            }
            let message = ("message".to_owned(), meter.str(message)?);
            Ok(vec![("descriptions".to_owned(), list.finish(Kind::List)?), message])
        };
        self.program.render(SystemTime::UNIX_EPOCH, define).map_err(|error| Error::of_rendering(HANDOVER, error))
    }
}

#[cfg(test)]
mod tests;

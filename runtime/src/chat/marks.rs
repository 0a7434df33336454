//! Renders a conversation so that it is known which parts of the text come from messages.
//!
//! Characters of a private-use area stand in for control tokens that somebody wrote into a message, so the template never
//! sees them; afterwards they are put back, and their places are known. Others are put around the visible part of each answer, inside of its
//! white space, so that trimming works as ever; what that rendering gives must be, without the marks, what comes without them.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use serde_json::Value;

use crate::Error;
use crate::template::{Message, Role, Template};
use crate::tokenizer::{Controls, Tokenizer};

/// The conversation as text.
#[derive(Debug, Default)]
pub(crate) struct Rendered {
    /// Up to where the next answer begins.
    pub text: String,
    /// Bytes of the text that are control tokens' texts, written into a message: to be read literally.
    pub literal: Vec<Range<usize>>,
    /// Numbers of messages with answers, and where the visible part of each stands; in order of place.
    pub answers: Vec<(usize, Range<usize>)>,
}

/// What control tokens are, for each role: the model's own answer may hold words that the template looks for, such as those
/// around its reasoning.
#[derive(Clone, Debug)]
pub struct Guard {
    /// In what people and descriptions say.
    pub said: Controls,
    /// In answers.
    pub answered: Controls,
}

/// A template, and the functions that it tells of.
#[derive(Clone, Copy)]
struct Teller<'a> {
    template: &'a Template,
    tools: &'a [Value],
}

impl Teller<'_> {
    fn render(&self, messages: &[Message]) -> Result<String, Error> {
        Ok(self.template.render_with(messages, self.tools, true)?)
    }
}

/// Renders `messages`, with definitions of `tools`, up to where the next answer begins.
pub(crate) fn render(
    template: &Template,
    tokenizer: &Tokenizer,
    guard: &Guard,
    messages: &[Message],
    tools: &[Value],
) -> Result<Rendered, Error> {
    let harmless = |value: &Value| harmless(value, tokenizer, &guard.said);
    let tools: Vec<Value> = tools.iter().map(harmless).collect::<Result<_, _>>()?;
    let mut messages = messages.to_vec();
    for (_, value) in messages.iter_mut().flat_map(|message| &mut message.fields) {
        *value = harmless(value)?;
    }
    let messages = messages.as_slice();
    let template = Teller { template, tools: &tools };
    let mut spare = Spare::beside(messages, &tools);
    let mut hidden = messages.to_vec();
    let mut names: BTreeMap<char, String> = BTreeMap::new();
    for message in &mut hidden {
        let controls = if message.role == Role::Assistant { &guard.answered } else { &guard.said };
        for range in tokenizer.find_controls(controls, &message.text)?.into_iter().rev() {
            let name = message.text[range.clone()].to_owned();
            let known = names.iter().find(|(_, known)| **known == name).map(|(&mark, _)| mark);
            let Some(mark) = known.or_else(|| spare.next()) else {
                // The message holds all private characters there are.
                message.text.insert(range.start + first_character(&name), ' ');
                continue;
            };
            names.insert(mark, name);
            message.text.replace_range(range, mark.encode_utf8(&mut [0; 4]));
        }
    }
    if names.is_empty() {
        let text = template.render(messages)?;
        let answers = find_answers(template, messages, &text, &mut spare);
        return Ok(Rendered { text, literal: Vec::new(), answers });
    }
    let plain = template.render(messages);
    if let Ok(text) = &plain
        && is_bare(text, messages)
    {
        let answers = find_answers(template, messages, text, &mut spare);
        return Ok(Rendered { text: text.clone(), literal: Vec::new(), answers });
    }
    match template.render(&hidden) {
        Ok(text) if keeps(&text, plain.as_deref().ok(), &names) => {
            let answers = find_answers(template, &hidden, &text, &mut spare);
            Ok(restored(&text, &names, &answers))
        }
        // It looks into messages in a way that the marks do not survive: control tokens are broken in two.
        _ => {
            let broken: Vec<Message> = hidden.into_iter().map(|message| broken(message, &names)).collect();
            let text = template.render(&broken)?;
            let answers = find_answers(template, &broken, &text, &mut spare);
            Ok(Rendered { text, literal: Vec::new(), answers })
        }
    }
}

/// Whether the template writes nothing around messages. Then whoever writes them writes the whole prompt, control tokens too: there
/// is no frame that a message could break out of.
fn is_bare(text: &str, messages: &[Message]) -> bool {
    messages.iter().try_fold(text, |rest, message| rest.strip_prefix(message.text.as_str())) == Some("")
}

/// Whether all that control tokens became in `plain`, the marks became in `marked`. What a template does only because it
/// finds a control token in a message is not missed.
fn keeps(marked: &str, plain: Option<&str>, names: &BTreeMap<char, String>) -> bool {
    let Some(plain) = plain else { return true };
    if plain.contains(|c| names.contains_key(&c)) {
        return false;
    }
    let marked = restored(marked, names, &[]).text;
    marked == plain || names.values().all(|name| plain.matches(name).count() <= marked.matches(name).count())
}

/// The text with names in place of their marks.
fn restored(text: &str, names: &BTreeMap<char, String>, answers: &[(usize, Range<usize>)]) -> Rendered {
    let mut rendered = Rendered::default();
    let mut moved: BTreeMap<usize, usize> = BTreeMap::new();
    let ends: HashSet<usize> = answers.iter().flat_map(|(_, range)| [range.start, range.end]).collect();
    for (at, c) in text.char_indices() {
        if ends.contains(&at) {
            moved.insert(at, rendered.text.len());
        }
        match names.get(&c) {
            None => rendered.text.push(c),
            Some(name) => {
                let start = rendered.text.len();
                rendered.text += name;
                rendered.literal.push(start..rendered.text.len());
            }
        }
    }
    moved.insert(text.len(), rendered.text.len());
    let place = |(number, range): &(usize, Range<usize>)| (*number, moved[&range.start]..moved[&range.end]);
    rendered.answers = answers.iter().map(place).collect();
    rendered
}

/// JSON whose texts hold no control token: a space stands behind its first character. What a template makes of JSON is quoted and
/// escaped in its own way, so marks would not be found again.
fn harmless(value: &Value, tokenizer: &Tokenizer, controls: &Controls) -> Result<Value, Error> {
    let text = |text: &str| -> Result<String, Error> {
        let mut text = text.to_owned();
        for range in tokenizer.find_controls(controls, &text)?.into_iter().rev() {
            text.insert(range.start + first_character(&text[range]), ' ');
        }
        Ok(text)
    };
    Ok(match value {
        Value::String(string) => Value::String(text(string)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| harmless(item, tokenizer, controls)).collect::<Result<_, _>>()?)
        }
        Value::Object(entries) => {
            let entries = entries.iter();
            let entries = entries.map(|(name, value)| Ok((text(name)?, harmless(value, tokenizer, controls)?)));
            Value::Object(entries.collect::<Result<_, Error>>()?)
        }
        other => other.clone(),
    })
}

/// Bytes of it.
fn first_character(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

/// A message whose marks are control tokens with a space after their first character.
fn broken(message: Message, names: &BTreeMap<char, String>) -> Message {
    let mut text = String::with_capacity(message.text.len());
    for c in message.text.chars() {
        match names.get(&c) {
            None => text.push(c),
            Some(name) => {
                let (first, rest) = name.split_at(first_character(name));
                text.extend([first, " ", rest]);
            }
        }
    }
    Message { text, ..message }
}

/// Where the answers among `messages` stand in `text`, which is what the template makes of them. Answers that the template changes
/// other than by trimming are left out, and so are empty ones.
fn find_answers(
    template: Teller<'_>,
    messages: &[Message],
    text: &str,
    spare: &mut Spare,
) -> Vec<(usize, Range<usize>)> {
    let mut marks: Vec<(usize, [char; 2])> = Vec::new();
    for (number, message) in messages.iter().enumerate() {
        if message.role == Role::Assistant
            && !message.text.trim().is_empty()
            && let (Some(open), Some(close)) = (spare.next(), spare.next())
        {
            marks.push((number, [open, close]));
        }
    }
    if marks.is_empty() || text.contains(|c| marks.iter().any(|(_, pair)| pair.contains(&c))) {
        return Vec::new();
    }
    let around = |content: &str, [open, close]: [char; 2]| format!("{open}{content}{close}");
    let instead = |_: &str, [open, close]: [char; 2]| format!("{open}{close}");
    // A template may look at how an answer begins; then it only shows where the answer goes.
    read_marks(template, messages, text, &marks, around)
        .or_else(|| read_marks(template, messages, text, &marks, instead))
        .unwrap_or_default()
}

fn read_marks(
    template: Teller<'_>,
    messages: &[Message],
    text: &str,
    marks: &[(usize, [char; 2])],
    mark: impl Fn(&str, [char; 2]) -> String,
) -> Option<Vec<(usize, Range<usize>)>> {
    let mut marked = messages.to_vec();
    for &(number, pair) in marks {
        let message = &mut marked[number];
        let content = message.text.trim();
        let start = content.as_ptr() as usize - message.text.as_ptr() as usize;
        let range = start..start + content.len();
        let shown = mark(content, pair);
        message.text.replace_range(range, &shown);
    }
    let marked = template.render(&marked).ok()?;
    let mut places: BTreeMap<char, Vec<usize>> = BTreeMap::new();
    let known: BTreeMap<char, (usize, bool)> =
        marks.iter().flat_map(|&(number, [open, close])| [(open, (number, true)), (close, (number, false))]).collect();
    let mut rest = String::with_capacity(marked.len());
    let mut characters = marked.chars().peekable();
    while let Some(c) = characters.next() {
        let Some(&(number, opens)) = known.get(&c) else {
            rest.push(c);
            continue;
        };
        places.entry(c).or_default().push(rest.len());
        let closes_at_once = characters.peek().and_then(|next| known.get(next)) == Some(&(number, false));
        if opens && closes_at_once {
            rest += messages[number].text.trim();
        }
    }
    if rest != text {
        return None;
    }
    let place = |&(number, [open, close]): &(usize, [char; 2])| {
        let (open, close) = (places.get(&open)?, places.get(&close)?);
        let ([start], [end]) = (open.as_slice(), close.as_slice()) else { return None };
        let range = *start..*end;
        (text.get(range.clone())? == messages[number].text.trim()).then_some((number, range))
    };
    let mut found: Vec<(usize, Range<usize>)> = marks.iter().filter_map(place).collect();
    found.sort_unstable_by_key(|(_, range)| range.start);
    let apart = found.windows(2).all(|pair| pair[0].1.end <= pair[1].1.start);
    apart.then_some(found)
}

/// Characters of the private-use plane 15 that no message holds.
struct Spare {
    taken: HashSet<char>,
    next: u32,
}

impl Spare {
    const FIRST: char = '\u{f0000}';
    const LAST: char = '\u{ffffd}';

    fn beside(messages: &[Message], tools: &[Value]) -> Spare {
        let private = |c: &char| (Spare::FIRST..=Spare::LAST).contains(c);
        let fields = messages.iter().flat_map(|message| &message.fields).map(|(_, value)| value);
        let json: Vec<String> = fields.chain(tools).map(Value::to_string).collect();
        let texts = messages.iter().map(|message| &message.text).chain(&json);
        let taken = texts.flat_map(|text| text.chars()).filter(private).collect();
        Spare { taken, next: u32::from(Spare::FIRST) }
    }

    fn next(&mut self) -> Option<char> {
        while self.next <= u32::from(Spare::LAST) {
            let found = char::from_u32(self.next);
            self.next += 1;
            if let Some(found) = found.filter(|c| !self.taken.contains(c)) {
                return Some(found);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;

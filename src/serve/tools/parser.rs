//! Separates an answer, as it comes, into text and calls.

use serde_json::Value;

use super::scanner::{Found, Scanner, whole};
use super::syntax::Syntax;
use super::{Tool, arguments};

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text for the person.
    Text(String),
    /// A call begins.
    Call {
        /// Its number within the answer, from 0.
        index: usize,
        /// The function.
        name: String,
    },
    /// More of a call's arguments.
    Arguments {
        /// The call.
        index: usize,
        /// A piece of JSON.
        text: String,
    },
}

#[derive(Debug)]
enum State {
    /// Nothing but white space so far, where a call would be the whole answer.
    Start,
    /// Text; what may be the beginning of a mark is held back.
    Text,
    /// Within a call.
    Call(Scanner),
    /// Text to the end, whatever it holds.
    Plain,
}

/// Separates an answer into text and calls.
#[derive(Debug)]
pub struct Parser {
    syntax: Option<Syntax>,
    names: Vec<String>,
    parallel: bool,
    state: State,
    held: String,
    calls: usize,
    /// The number of the call that is being read, once its name was given.
    current: Option<usize>,
}

const PYTHON_TAG: &str = "<|python_tag|>";

impl Parser {
    /// A parser for answers in a syntax; without one, everything is text.
    pub fn new(syntax: Option<Syntax>, tools: &[Tool], parallel: bool) -> Parser {
        let state = match syntax {
            None => State::Plain,
            Some(syntax) if syntax.opening().is_some() => State::Text,
            Some(_) => State::Start,
        };
        let names = tools.iter().map(|tool| tool.name.clone()).collect();
        Parser { syntax, names, parallel, state, held: String::new(), calls: 0, current: None }
    }

    /// How many calls there are.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Takes more of the answer.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut text = text.to_owned();
        // Each turn either ends or goes on with what is behind a mark.
        while let Some(rest) = self.step(&text, &mut pieces) {
            text = rest;
        }
        pieces
    }

    fn step(&mut self, text: &str, pieces: &mut Vec<Piece>) -> Option<String> {
        match &mut self.state {
            State::Plain => {
                self.text(text.to_owned(), pieces);
                None
            }
            State::Start => {
                self.held += text;
                let inner = self.held.trim_start();
                if inner.is_empty() || PYTHON_TAG.starts_with(inner) {
                    return None;
                }
                let rest = inner.strip_prefix(PYTHON_TAG).unwrap_or(inner).to_owned();
                match rest.trim_start().chars().next() {
                    None => None,
                    Some('{' | '[') => {
                        self.held.clear();
                        self.state = State::Call(Scanner::default());
                        Some(rest)
                    }
                    Some(_) => {
                        self.state = State::Plain;
                        Some(std::mem::take(&mut self.held))
                    }
                }
            }
            State::Text => {
                self.held += text;
                let opening = self.syntax.and_then(Syntax::opening).unwrap_or_default();
                if let Some(at) = self.held.find(opening) {
                    let behind = self.held[at + opening.len()..].to_owned();
                    self.held.truncate(at);
                    // Line breaks before a call belong to its syntax.
                    let before = std::mem::take(&mut self.held);
                    self.text(before.trim_end().to_owned(), pieces);
                    self.state = State::Call(Scanner::default());
                    return Some(behind);
                }
                // Line breaks may belong to a call that follows.
                let keep = self.held[..held_back(&self.held, opening)].trim_end().len();
                let ready: String = self.held.drain(..keep).collect();
                self.text(ready, pieces);
                None
            }
            State::Call(_) => self.call(text, pieces),
        }
    }

    /// Takes text within a call; gives what stands behind its end.
    fn call(&mut self, text: &str, pieces: &mut Vec<Piece>) -> Option<String> {
        self.held += text;
        match self.syntax.and_then(Syntax::closing) {
            Some(closing) => {
                if let Some(at) = self.held.find(closing) {
                    let behind = self.held[at + closing.len()..].to_owned();
                    self.held.truncate(at);
                    let inner = std::mem::take(&mut self.held);
                    self.scan(&inner, pieces);
                    self.end(pieces);
                    self.state = State::Text;
                    return Some(behind);
                }
                let keep = held_back(&self.held, closing);
                let ready: String = self.held.drain(..keep).collect();
                self.scan(&ready, pieces);
            }
            // The call is the rest of the answer, so that it is known as such only when it is complete or its name is known.
            None => {
                let ready = std::mem::take(&mut self.held);
                self.scan(&ready, pieces);
            }
        }
        None
    }

    fn scan(&mut self, text: &str, pieces: &mut Vec<Piece>) {
        let (is_json, is_marked) = (self.syntax.is_some_and(Syntax::is_json), self.is_marked());
        let State::Call(scanner) = &mut self.state else { return };
        let found = scanner.push(text);
        for found in found.into_iter().filter(|_| is_json) {
            match found {
                // A name that nobody knows is the text of somebody else's JSON.
                Found::Name(name) if self.parallel || self.calls == 0 => {
                    if is_marked || self.names.contains(&name) {
                        self.current = Some(self.calls);
                        pieces.push(Piece::Call { index: self.calls, name });
                        self.calls += 1;
                    }
                }
                Found::Name(_) => {}
                Found::Arguments(text) => {
                    pieces.extend(self.current.map(|index| Piece::Arguments { index, text }));
                }
            }
        }
    }

    fn is_marked(&self) -> bool {
        self.syntax.is_some_and(|syntax| syntax.opening().is_some())
    }

    /// Ends a call: what was not understood as it came is understood as a whole, or is text after all.
    fn end(&mut self, pieces: &mut Vec<Piece>) {
        let State::Call(scanner) = std::mem::replace(&mut self.state, State::Plain) else { return };
        let syntax = self.syntax.unwrap_or(Syntax::Json);
        let (text, given) = (scanner.text().to_owned(), self.current.take());
        let calls = match (syntax, given) {
            (Syntax::ToolCode, _) => arguments::python(&text),
            (Syntax::FunctionGemma, _) => arguments::function_gemma(&text).map(|call| vec![call]),
            // Given as it came.
            (Syntax::Hermes, Some(_)) => return,
            // Others may follow it.
            (_, Some(_)) => in_json(&text).map(|calls| calls.into_iter().skip(1).collect()),
            (_, None) => in_json(&text),
        };
        let is_marked = self.is_marked();
        let is_known = |(name, _): &(String, Value)| is_marked || self.names.contains(name);
        match calls {
            Some(calls) if calls.iter().all(is_known) => {
                for (name, arguments) in calls {
                    if !self.parallel && self.calls > 0 {
                        break;
                    }
                    let index = self.calls;
                    pieces.push(Piece::Call { index, name });
                    pieces.push(Piece::Arguments { index, text: arguments.to_string() });
                    self.calls += 1;
                }
            }
            _ if given.is_some() => {}
            _ => {
                let (opening, closing) = (syntax.opening().unwrap_or(""), syntax.closing().unwrap_or(""));
                self.text(format!("{opening}{text}{closing}"), pieces);
            }
        }
    }

    /// The answer is complete.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Call(_) => {
                self.scan(&held, &mut pieces);
                self.end(&mut pieces);
            }
            _ => self.text(held, &mut pieces),
        }
        pieces
    }

    /// White space beside calls is dropped.
    fn text(&mut self, text: String, pieces: &mut Vec<Piece>) {
        if !(text.is_empty() || self.calls > 0 && text.trim().is_empty()) {
            pieces.push(Piece::Text(text));
        }
    }
}

/// How much of a text is certainly not the beginning of a mark.
fn held_back(text: &str, mark: &str) -> usize {
    let most = mark.len().saturating_sub(1).min(text.len());
    let begins =
        |count: &usize| text.is_char_boundary(text.len() - count) && mark.starts_with(&text[text.len() - count..]);
    text.len() - (1..=most).rev().find(begins).unwrap_or(0)
}

/// Calls in JSON that are the whole text: an object, a list of them, or several with semicolons between.
fn in_json(text: &str) -> Option<Vec<(String, Value)>> {
    let text = text.trim();
    if let Ok(Value::Array(list)) = serde_json::from_str(text) {
        return list.iter().map(whole).collect::<Option<Vec<_>>>().filter(|calls| !calls.is_empty());
    }
    let (mut calls, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        calls.push(whole(&values.next()?.ok()?)?);
        rest = rest[values.byte_offset()..].trim_start_matches([';', ' ', '\n', '\r', '\t']);
    }
    (!calls.is_empty()).then_some(calls)
}

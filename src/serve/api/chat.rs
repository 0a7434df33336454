//! `POST /v1/chat/completions`: the answer as a whole, or as a stream.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use dwindle_runtime::engine::{Outcome, TokenInfo};
use serde_json::{Value, json};

use super::prepare::{self, Prepared};
use super::{Answer, figures};
use crate::serve::error::ApiError;
use crate::serve::http::body::Parsed;
use crate::serve::http::reply;
use crate::serve::http::stream::{self, Events, Left};
use crate::serve::request::chat;
use crate::serve::state::{Server, identifier, now};
use crate::serve::tools::{Parser, Piece};
use crate::serve::updates::Update;
use crate::serve::worker::Ticket;

/// Answers.
pub async fn complete(State(server): State<Arc<Server>>, request: Request<Body>) -> Answer {
    let loaded = server.worker.loaded().await?;
    let Parsed { value, share } = server.bodies.json(request).await?;
    let chat = chat::read(&value, &loaded.info.sampling, loaded.info.vocab_size)?;
    drop(value);
    let (stream, include_usage) = (chat.stream, chat.include_usage);
    let with_logprobs = chat.generation.top_logprobs.is_some();
    let Prepared { draft, parser } = prepare::chat(&server, &loaded, chat, share).await?;
    let ticket = server.worker.submit(draft)?;
    let head = Head { id: identifier("chatcmpl-"), created: now(), model: server.model.clone() };
    match stream {
        true => Ok(stream::events(move |events| streamed(events, ticket, head, parser, include_usage, with_logprobs))),
        false => whole(ticket, head, parser, with_logprobs).await,
    }
}

/// What all chunks of an answer have.
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": concat!("dwindle-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }

    fn chunk(&self, delta: Value, finish_reason: Option<&str>, logprobs: Option<Value>) -> Value {
        let choice = json!({ "index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason });
        self.object("chat.completion.chunk", json!([choice]))
    }
}

async fn streamed(
    events: Events,
    mut ticket: Ticket,
    head: Head,
    mut parser: Parser,
    include_usage: bool,
    with_logprobs: bool,
) -> Result<(), Left> {
    // The role comes with the first text, behind the comments about progress: with it, a client counts the first token.
    let mut begun = false;
    let mut waiting: Vec<TokenInfo> = Vec::new();
    while let Some(update) = events.next(&mut ticket.updates).await? {
        if let Some(progress) = stream::progress(&update) {
            events.progress(&progress).await?;
            continue;
        }
        let (pieces, outcome) = match update {
            Update::Failed(error) => {
                events.data(&error.body()).await?;
                return Ok(());
            }
            Update::Text { text, tokens } => {
                waiting.extend(tokens);
                (parser.push(&text), None)
            }
            Update::Done(outcome) => (parser.finish(), Some(outcome)),
            _ => continue,
        };
        if !begun {
            begun = true;
            events.data(&head.chunk(json!({ "role": "assistant", "content": "" }), None, None)).await?;
        }
        for piece in pieces {
            let logprobs =
                (with_logprobs && !waiting.is_empty()).then(|| figures::logprobs(&std::mem::take(&mut waiting)));
            events.data(&head.chunk(delta(&piece), None, logprobs)).await?;
        }
        if let Some(outcome) = outcome {
            let logprobs = (with_logprobs && !waiting.is_empty()).then(|| figures::logprobs(&waiting));
            return ending(&events, &head, &outcome, parser.calls(), include_usage, logprobs).await;
        }
    }
    // The worker ended without a word.
    events.data(&ApiError::ending().body()).await
}

async fn ending(
    events: &Events,
    head: &Head,
    outcome: &Outcome,
    calls: usize,
    include_usage: bool,
    logprobs: Option<Value>,
) -> Result<(), Left> {
    let mut last = head.chunk(json!({}), Some(figures::finish_reason(outcome, calls)), logprobs);
    last["dwindle"] = figures::extension(outcome);
    last["timings"] = figures::timings(outcome);
    events.data(&last).await?;
    if include_usage {
        let mut usage = head.object("chat.completion.chunk", json!([]));
        usage["usage"] = figures::usage(outcome);
        events.data(&usage).await?;
    }
    events.done().await
}

fn delta(piece: &Piece) -> Value {
    match piece {
        Piece::Text(text) => json!({ "content": text }),
        Piece::Call { index, name } => json!({ "tool_calls": [{
            "index": index,
            "id": identifier("call_"),
            "type": "function",
            "function": { "name": name, "arguments": "" },
        }] }),
        Piece::Arguments { index, text } => {
            json!({ "tool_calls": [{ "index": index, "function": { "arguments": text } }] })
        }
    }
}

async fn whole(mut ticket: Ticket, head: Head, mut parser: Parser, with_logprobs: bool) -> Answer {
    let mut message = Message::default();
    let mut tokens = Vec::new();
    while let Some(update) = ticket.updates.next().await {
        match update {
            Update::Failed(error) => return Err(error),
            Update::Text { text, tokens: more } => {
                parser.push(&text).into_iter().for_each(|piece| message.add(piece));
                tokens.extend(more);
            }
            Update::Done(outcome) => {
                parser.finish().into_iter().for_each(|piece| message.add(piece));
                let choice = json!([{
                    "index": 0,
                    "message": message.object(),
                    "logprobs": with_logprobs.then(|| figures::logprobs(&tokens)),
                    "finish_reason": figures::finish_reason(&outcome, parser.calls()),
                }]);
                let mut answer = head.object("chat.completion", choice);
                answer["usage"] = figures::usage(&outcome);
                answer["timings"] = figures::timings(&outcome);
                answer["dwindle"] = figures::extension(&outcome);
                return Ok(reply::json(&answer));
            }
            _ => {}
        }
    }
    Err(ApiError::ending())
}

/// An answer's text and calls.
#[derive(Debug, Default)]
pub struct Message {
    /// All of the text.
    pub text: String,
    /// Names and arguments.
    pub calls: Vec<(String, String)>,
}

impl Message {
    /// Adds a part.
    pub fn add(&mut self, piece: Piece) {
        match piece {
            Piece::Text(text) => self.text += &text,
            Piece::Call { name, .. } => self.calls.push((name, String::new())),
            Piece::Arguments { text, .. } => {
                if let Some((_, arguments)) = self.calls.last_mut() {
                    *arguments += &text;
                }
            }
        }
    }

    fn object(&self) -> Value {
        if self.calls.is_empty() {
            return json!({ "role": "assistant", "content": self.text, "refusal": null });
        }
        let calls = self.calls.iter().map(|(name, arguments)| {
            json!({
                "id": identifier("call_"),
                "type": "function",
                "function": { "name": name, "arguments": arguments },
            })
        });
        let content = (!self.text.is_empty()).then_some(&self.text);
        json!({ "role": "assistant", "content": content, "refusal": null, "tool_calls": calls.collect::<Vec<_>>() })
    }
}

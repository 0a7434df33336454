//! `POST /v1/responses`: the answer as items, whole or as a stream of events.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use dwindle_runtime::Finish;
use dwindle_runtime::engine::{Outcome, TokenInfo};
use serde_json::{Value, json};

use super::prepare::{self, Prepared};
use super::{Answer, figures};
use crate::serve::error::ApiError;
use crate::serve::http::body::Parsed;
use crate::serve::http::reply;
use crate::serve::http::stream::{self, Events, Left};
use crate::serve::request::responses::{self, Repeated};
use crate::serve::state::{Server, identifier, now};
use crate::serve::tools::{Parser, Piece};
use crate::serve::updates::Update;
use crate::serve::worker::Ticket;

/// Answers.
pub async fn respond(State(server): State<Arc<Server>>, request: Request<Body>) -> Answer {
    let loaded = server.worker.loaded().await?;
    let Parsed { value, share } = server.bodies.json(request).await?;
    let responses = responses::read(&value, &loaded.info.sampling, loaded.info.vocab_size)?;
    drop(value);
    let stream = responses.chat.stream;
    let with_logprobs = responses.chat.generation.top_logprobs.is_some();
    let Prepared { draft, parser } = prepare::chat(&server, &loaded, responses.chat, share).await?;
    let ticket = server.worker.submit(draft)?;
    let response = Response {
        id: identifier("resp_"),
        created: now(),
        model: server.model.clone(),
        repeated: responses.repeated,
        items: Vec::new(),
        with_logprobs,
        tokens: Vec::new(),
        sequence: 0,
    };
    match stream {
        true => Ok(stream::events(move |events| streamed(events, ticket, response, parser))),
        false => whole(ticket, response, parser).await,
    }
}

/// An item of the answer.
enum Item {
    Message { id: String, text: String },
    Call { id: String, call_id: String, name: String, arguments: String },
}

/// An answer as it grows.
struct Response {
    id: String,
    created: u64,
    model: String,
    repeated: Repeated,
    items: Vec<Item>,
    with_logprobs: bool,
    tokens: Vec<TokenInfo>,
    sequence: u64,
}

/// A name and what it tells.
type Event = (&'static str, Value);

impl Response {
    fn object(&self, status: &str, outcome: Option<&Outcome>, error: Option<&ApiError>) -> Value {
        let Repeated { instructions, tools, tool_choice, text, metadata, .. } = &self.repeated;
        let last = self.items.len().saturating_sub(1);
        let item = |(index, item): (usize, &Item)| match status {
            "incomplete" if index == last => self.item(item, "incomplete"),
            _ => self.item(item, "completed"),
        };
        let output: Vec<Value> = match status {
            "in_progress" => Vec::new(),
            _ => self.items.iter().enumerate().map(item).collect(),
        };
        let incomplete = (status == "incomplete").then(|| json!({ "reason": "max_output_tokens" }));
        let error =
            error.map(|error| json!({ "code": error.code.unwrap_or("server_error"), "message": error.message }));
        let mut object = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": false,
            "error": error,
            "incomplete_details": incomplete,
            "instructions": instructions,
            "max_output_tokens": self.repeated.max_output_tokens,
            "model": self.model,
            "output": output,
            "parallel_tool_calls": self.repeated.parallel,
            "previous_response_id": null,
            "reasoning": { "effort": null, "summary": null },
            "store": false,
            "temperature": self.repeated.temperature,
            "text": text,
            "tool_choice": tool_choice,
            "tools": tools,
            "top_p": self.repeated.top_p,
            "truncation": self.repeated.truncation,
            "usage": null,
            "metadata": metadata,
        });
        if let Some(outcome) = outcome {
            object["usage"] = json!({
                "input_tokens": outcome.prompt_tokens,
                "input_tokens_details": { "cached_tokens": outcome.cached_tokens },
                "output_tokens": outcome.tokens.len(),
                "output_tokens_details": { "reasoning_tokens": 0 },
                "total_tokens": outcome.prompt_tokens + outcome.tokens.len(),
            });
            object["timings"] = figures::timings(outcome);
            object["dwindle"] = figures::extension(outcome);
        }
        object
    }

    fn item(&self, item: &Item, status: &str) -> Value {
        match item {
            Item::Message { id, text } => json!({
                "id": id, "type": "message", "status": status, "role": "assistant", "content": [self.part(text)],
            }),
            Item::Call { id, call_id, name, arguments } => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name,
                "arguments": arguments,
            }),
        }
    }

    fn part(&self, text: &str) -> Value {
        json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": self.logprobs(&self.tokens) })
    }

    fn logprobs(&self, tokens: &[TokenInfo]) -> Value {
        match self.with_logprobs {
            true => figures::logprobs(tokens)["content"].take(),
            false => json!([]),
        }
    }

    /// Takes a part of the answer; gives what is told of it.
    fn add(&mut self, piece: Piece, tokens: &[TokenInfo]) -> Vec<Event> {
        let mut events = Vec::new();
        let starts = match (&piece, self.items.last()) {
            (Piece::Text(_), Some(Item::Message { .. })) | (Piece::Arguments { .. }, Some(Item::Call { .. })) => false,
            (Piece::Arguments { .. }, _) => return events,
            _ => true,
        };
        if starts {
            events.extend(self.end_item());
        }
        let index = self.items.len() - usize::from(!starts);
        match piece {
            Piece::Text(text) => {
                if starts {
                    let id = identifier("msg_");
                    let item = json!({ "id": id, "type": "message", "status": "in_progress", "role": "assistant", "content": [] });
                    events.push(("response.output_item.added", json!({ "output_index": index, "item": item })));
                    let part = json!({ "type": "output_text", "text": "", "annotations": [], "logprobs": [] });
                    let added = json!({ "item_id": id, "output_index": index, "content_index": 0, "part": part });
                    events.push(("response.content_part.added", added));
                    self.items.push(Item::Message { id, text: String::new() });
                }
                let logprobs = self.logprobs(tokens);
                if let Some(Item::Message { id, text: whole }) = self.items.last_mut() {
                    *whole += &text;
                    let delta = json!({
                        "item_id": id, "output_index": index, "content_index": 0, "delta": text, "logprobs": logprobs,
                    });
                    events.push(("response.output_text.delta", delta));
                }
            }
            Piece::Call { name, .. } => {
                let (id, call_id) = (identifier("fc_"), identifier("call_"));
                let item = Item::Call { id, call_id, name, arguments: String::new() };
                let added = json!({ "output_index": index, "item": self.item(&item, "in_progress") });
                events.push(("response.output_item.added", added));
                self.items.push(item);
            }
            Piece::Arguments { text, .. } => {
                if let Some(Item::Call { id, arguments, .. }) = self.items.last_mut() {
                    *arguments += &text;
                    let delta = json!({ "item_id": id, "output_index": index, "delta": text });
                    events.push(("response.function_call_arguments.delta", delta));
                }
            }
        }
        events
    }

    /// What is told where an item ends.
    fn end_item(&self) -> Vec<Event> {
        let Some(item) = self.items.last() else { return Vec::new() };
        let index = self.items.len() - 1;
        let mut events = match item {
            Item::Message { id, text } => vec![
                (
                    "response.output_text.done",
                    json!({
                        "item_id": id, "output_index": index, "content_index": 0, "text": text,
                        "logprobs": self.logprobs(&self.tokens),
                    }),
                ),
                (
                    "response.content_part.done",
                    json!({
                        "item_id": id, "output_index": index, "content_index": 0, "part": self.part(text),
                    }),
                ),
            ],
            Item::Call { id, name, arguments, .. } => vec![(
                "response.function_call_arguments.done",
                json!({ "item_id": id, "output_index": index, "name": name, "arguments": arguments }),
            )],
        };
        events.push((
            "response.output_item.done",
            json!({ "output_index": index, "item": self.item(item, "completed") }),
        ));
        events
    }

    /// An answer without a word is an empty message.
    fn complete(&mut self) -> Vec<Event> {
        match self.items.is_empty() {
            true => self.add(Piece::Text(String::new()), &[]),
            false => Vec::new(),
        }
    }

    async fn tell(&mut self, events: &Events, told: Vec<Event>) -> Result<(), Left> {
        for (name, mut value) in told {
            value["type"] = name.into();
            value["sequence_number"] = self.sequence.into();
            self.sequence += 1;
            events.named(name, &value).await?;
        }
        Ok(())
    }
}

fn status(outcome: &Outcome) -> &'static str {
    if outcome.finish == Finish::Length { "incomplete" } else { "completed" }
}

async fn streamed(events: Events, mut ticket: Ticket, mut response: Response, mut parser: Parser) -> Result<(), Left> {
    for name in ["response.created", "response.in_progress"] {
        let begun = json!({ "response": response.object("in_progress", None, None) });
        response.tell(&events, vec![(name, begun)]).await?;
    }
    let mut waiting: Vec<TokenInfo> = Vec::new();
    while let Some(update) = events.next(&mut ticket.updates).await? {
        if let Some(progress) = stream::progress(&update) {
            events.progress(&progress).await?;
            continue;
        }
        match update {
            Update::Failed(error) => return failed(&events, response, &error).await,
            Update::Text { text, tokens } => {
                response.tokens.extend(tokens.iter().cloned());
                waiting.extend(tokens);
                for piece in parser.push(&text) {
                    let told = response.add(piece, &std::mem::take(&mut waiting));
                    response.tell(&events, told).await?;
                }
            }
            Update::Done(outcome) => {
                let mut told = Vec::new();
                for piece in parser.finish() {
                    told.extend(response.add(piece, &std::mem::take(&mut waiting)));
                }
                told.extend(response.complete());
                told.extend(response.end_item());
                let status = status(&outcome);
                let name = if status == "completed" { "response.completed" } else { "response.incomplete" };
                told.push((name, json!({ "response": response.object(status, Some(&outcome), None) })));
                return response.tell(&events, told).await;
            }
            _ => {}
        }
    }
    failed(&events, response, &ApiError::ending()).await
}

async fn failed(events: &Events, mut response: Response, error: &ApiError) -> Result<(), Left> {
    let told = json!({ "code": error.code, "message": error.message, "param": error.param });
    let object = json!({ "response": response.object("failed", None, Some(error)) });
    response.tell(events, vec![("error", told), ("response.failed", object)]).await
}

async fn whole(mut ticket: Ticket, mut response: Response, mut parser: Parser) -> Answer {
    while let Some(update) = ticket.updates.next().await {
        match update {
            Update::Failed(error) => return Err(error),
            Update::Text { text, tokens } => {
                response.tokens.extend(tokens);
                for piece in parser.push(&text) {
                    response.add(piece, &[]);
                }
            }
            Update::Done(outcome) => {
                for piece in parser.finish() {
                    response.add(piece, &[]);
                }
                response.complete();
                return Ok(reply::json(&response.object(status(&outcome), Some(&outcome), None)));
            }
            _ => {}
        }
    }
    Err(ApiError::ending())
}

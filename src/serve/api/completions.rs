//! `POST /v1/completions`: a text continued as it is.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use dwindle_runtime::engine::TokenInfo;
use serde_json::{Map, Value, json};

use super::{Answer, figures, prepare};
use crate::serve::error::ApiError;
use crate::serve::http::body::Parsed;
use crate::serve::http::reply;
use crate::serve::http::stream::{self, Events, Left};
use crate::serve::request::completions;
use crate::serve::state::{Server, identifier, now};
use crate::serve::updates::Update;
use crate::serve::worker::Ticket;

/// Answers.
pub async fn complete(State(server): State<Arc<Server>>, request: Request<Body>) -> Answer {
    let loaded = server.worker.loaded().await?;
    let Parsed { value, share } = server.bodies.json(request).await?;
    let completion = completions::read(&value, &loaded.info.sampling, loaded.info.vocab_size)?;
    drop(value);
    server.check_model(&loaded, completion.model.as_deref())?;
    let with_logprobs = completion.generation.top_logprobs.is_some();
    let mask = prepare::mask(&loaded, completion.format).await?;
    let ticket = server.worker.submit(prepare::draft(completion.asked, completion.generation, mask, share))?;
    let head = Head { id: identifier("cmpl-"), created: now(), model: server.model.clone(), with_logprobs };
    match completion.stream {
        true => Ok(stream::events(move |events| streamed(events, ticket, head, completion.include_usage))),
        false => whole(ticket, head).await,
    }
}

struct Head {
    id: String,
    created: u64,
    model: String,
    with_logprobs: bool,
}

impl Head {
    fn object(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": concat!("dwindle-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }

    fn choice(&self, text: &str, tokens: &[TokenInfo], offset: usize, finish_reason: Option<&str>) -> Value {
        let logprobs = (self.with_logprobs && !tokens.is_empty()).then(|| logprobs(tokens, offset));
        self.object(json!([{ "index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish_reason }]))
    }
}

/// The older form of probabilities.
fn logprobs(tokens: &[TokenInfo], mut offset: usize) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let top = |token: &TokenInfo| -> Map<String, Value> {
        token.top.iter().map(|(_, bytes, logprob)| (text(bytes), (*logprob).into())).collect()
    };
    let mut offsets = Vec::with_capacity(tokens.len());
    for token in tokens {
        offsets.push(offset);
        offset += text(&token.bytes).chars().count();
    }
    json!({
        "tokens": tokens.iter().map(|token| text(&token.bytes)).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}

async fn streamed(events: Events, mut ticket: Ticket, head: Head, include_usage: bool) -> Result<(), Left> {
    let mut offset = 0;
    while let Some(update) = events.next(&mut ticket.updates).await? {
        if let Some(progress) = stream::progress(&update) {
            events.progress(&progress).await?;
            continue;
        }
        match update {
            Update::Failed(error) => return events.data(&error.body()).await,
            Update::Text { text, tokens } if !text.is_empty() || !tokens.is_empty() => {
                events.data(&head.choice(&text, &tokens, offset, None)).await?;
                offset += text.chars().count();
            }
            Update::Done(outcome) => {
                let mut last = head.choice("", &[], offset, Some(figures::finish_reason(&outcome, 0)));
                last["dwindle"] = figures::extension(&outcome);
                last["timings"] = figures::timings(&outcome);
                events.data(&last).await?;
                if include_usage {
                    let mut usage = head.object(json!([]));
                    usage["usage"] = figures::usage(&outcome);
                    events.data(&usage).await?;
                }
                return events.done().await;
            }
            _ => {}
        }
    }
    events.data(&ApiError::ending().body()).await
}

async fn whole(mut ticket: Ticket, head: Head) -> Answer {
    let (mut text, mut tokens) = (String::new(), Vec::new());
    while let Some(update) = ticket.updates.next().await {
        match update {
            Update::Failed(error) => return Err(error),
            Update::Text { text: more, tokens: others } => {
                text += &more;
                tokens.extend(others);
            }
            Update::Done(outcome) => {
                let mut answer = head.choice(&text, &tokens, 0, Some(figures::finish_reason(&outcome, 0)));
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

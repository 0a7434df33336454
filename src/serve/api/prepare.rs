//! Makes a chat into what the engine is asked: pictures, functions, formats.

use std::sync::Arc;

use dwindle_constrain::Grammar;
use dwindle_runtime::engine::{Role, TokenMask};

use crate::serve::draft::{Asked, Draft, Piece, Said};
use crate::serve::error::ApiError;
use crate::serve::http::body::Share;
use crate::serve::pictures;
use crate::serve::request::chat::Chat;
use crate::serve::request::generation::Generation;
use crate::serve::state::Server;
use crate::serve::tools::{self, Choice, Parser, Syntax};
use crate::serve::worker::Loaded;

/// A chat that is ready to wait.
pub struct Prepared {
    /// For the queue.
    pub draft: Draft,
    /// For the answer.
    pub parser: Parser,
}

/// Prepares a chat.
///
/// # Errors
/// It asks for what this model cannot do.
pub async fn chat(server: &Server, loaded: &Arc<Loaded>, chat: Chat, share: Share) -> Result<Prepared, ApiError> {
    server.check_model(loaded, chat.model.as_deref())?;
    if loaded.info.template.is_none() {
        let message = format!(
            "the model `{}` has no chat template, so it cannot chat; /v1/completions continues texts",
            server.model
        );
        return Err(ApiError::field("model", message).with_code("no_chat_template"));
    }
    if !loaded.info.sees && chat.messages.iter().any(|message| !message.pictures.is_empty()) {
        let message = format!("the model `{}` cannot see pictures", server.model);
        return Err(ApiError::field("messages", message).with_code("pictures_not_supported"));
    }
    let mut messages = pictures::complete(chat.messages, server.fetcher.as_ref()).await?;
    name_results(&mut messages);
    let known = tools::syntax_of(&loaded.info);
    let is_offered = !chat.tools.is_empty() && chat.choice != Choice::None;
    let mut definitions = Vec::new();
    match known {
        Some(_) if is_offered => definitions = chat.tools.iter().map(|tool| tool.definition.clone()).collect(),
        Some(_) => {}
        None => {
            messages = tools::without_calls(messages);
            if is_offered {
                tools::instruct(&mut messages, &chat.tools);
            }
        }
    }
    let mut syntax = is_offered.then(|| known.unwrap_or(Syntax::Hermes));
    let mut grammar = chat.format;
    if let Some((calls, written)) =
        syntax.and_then(|syntax| tools::grammar(syntax, &chat.tools, &chat.choice, chat.parallel))
    {
        grammar = Some(calls);
        syntax = Some(written);
    }
    let mask = mask(loaded, grammar).await?;
    let mut generation = chat.generation;
    // One call is enough: what comes after it is not wanted.
    if let Some(closing) = syntax.and_then(Syntax::closing).filter(|_| !chat.parallel && mask.is_none()) {
        generation.stop.push(closing.to_owned());
    }
    let parser = Parser::new(syntax, &chat.tools, chat.parallel);
    Ok(Prepared { draft: draft(Asked::Messages { messages, tools: definitions }, generation, mask, share), parser })
}

/// Puts the parts of a request together.
pub fn draft(asked: Asked, generation: Generation, mask: Option<Box<dyn TokenMask>>, share: Share) -> Draft {
    Draft {
        asked,
        sampling: generation.sampling,
        max_tokens: generation.max_tokens,
        stop: generation.stop,
        top_logprobs: generation.top_logprobs,
        logit_bias: generation.logit_bias,
        mask,
        may_forget: generation.may_forget,
        share,
    }
}

/// Makes a mask on another thread: a schema may be large, and the first one builds the tokens' trie.
///
/// # Errors
/// What is wrong with a schema.
pub async fn mask(loaded: &Arc<Loaded>, grammar: Option<Grammar>) -> Result<Option<Box<dyn TokenMask>>, ApiError> {
    let Some(grammar) = grammar else { return Ok(None) };
    let loaded = Arc::clone(loaded);
    let made = tokio::task::spawn_blocking(move || {
        let constrainer = loaded.constrainer()?;
        Ok(constrainer.mask(&grammar)?)
    });
    match made.await {
        Ok(made) => made.map(Some),
        Err(_) => Err(ApiError::bad("the JSON schema cannot be used").with_code("invalid_json_schema")),
    }
}

/// Results name the function that they come from, as some templates want: the call of the same number does.
fn name_results(messages: &mut [Said]) {
    let mut calls: Vec<(String, String)> = Vec::new();
    for said in messages {
        calls.extend(said.tool_calls.iter().map(|call| (call.id.clone(), call.name.clone())));
        if said.role == Role::Tool && said.name.is_none() {
            let id = said.tool_call_id.as_deref();
            said.name = calls.iter().rev().find(|(call, _)| Some(call.as_str()) == id).map(|(_, name)| name.clone());
        }
        // A message without words is no reason to fail for templates that add texts.
        if said.content.is_empty() && said.tool_calls.is_empty() {
            said.content.push(Piece::Text(String::new()));
        }
    }
}

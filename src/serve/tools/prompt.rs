//! Functions for models whose template knows none: an instruction, and calls and results as text.
//!
//! Clients send tools to whatever model they are given, so refusing them would shut these models out. What is written
//! here is the syntax that most models that were trained on calls have seen; a required call is constrained by its
//! schema, so that even a model that has seen none writes a valid one.

use dwindle_runtime::engine::Role;
use serde_json::json;

use super::Tool;
use crate::serve::draft::{Piece, Said};

/// Adds the instruction to the system message, or puts one before the conversation.
pub fn instruct(messages: &mut Vec<Said>, tools: &[Tool]) {
    let mut text = "You can call functions. To call one, answer with nothing but\n<tool_call>\n{\"name\": \"the function\", \
                    \"arguments\": {…}}\n</tool_call>\nIts result comes as the next message. The functions, one a line:\n"
        .to_owned();
    for tool in tools {
        text += &tool.definition["function"].to_string();
        text.push('\n');
    }
    match messages.first_mut() {
        Some(first) if first.role == Role::System => first.content.push(Piece::Text(format!("\n\n{text}"))),
        _ => messages.insert(0, Said::text(Role::System, text)),
    }
}

/// Writes calls and their results as text; results that follow each other become one message of the user's, because many
/// templates want the roles in turn.
pub fn without_calls(messages: Vec<Said>) -> Vec<Said> {
    let mut plain: Vec<Said> = Vec::with_capacity(messages.len());
    let mut after_result = false;
    for mut said in messages {
        for call in std::mem::take(&mut said.tool_calls) {
            let call = json!({ "name": call.name, "arguments": call.arguments });
            let line = if said.content.is_empty() { "" } else { "\n" };
            said.content.push(Piece::Text(format!("{line}<tool_call>\n{call}\n</tool_call>")));
        }
        let is_result = said.role == Role::Tool;
        if is_result {
            let name = said.name.take().map(|name| format!(" of {name}")).unwrap_or_default();
            said.content.insert(0, Piece::Text(format!("<tool_response>\nThe result{name}:\n")));
            said.content.push(Piece::Text("\n</tool_response>".to_owned()));
            said.role = Role::User;
            said.tool_call_id = None;
        }
        match plain.last_mut() {
            Some(last) if after_result && said.role == Role::User => {
                last.content.push(Piece::Text("\n".to_owned()));
                last.content.append(&mut said.content);
            }
            _ => plain.push(said),
        }
        after_result = is_result || after_result && plain.last().is_some_and(|last| last.role == Role::User);
    }
    plain
}

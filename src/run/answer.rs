//! One answer to `--prompt`: text, or one JSON object.

use anyhow::Result;
use dwindle_runtime::chat::Phase;
use dwindle_runtime::{Conversation, Turn};

use super::attached::Attached;
use super::{Options, interrupt};
use crate::exit::Interrupted;
use crate::{memory, output};

/// Answers once. Only the answer goes to stdout.
pub fn once(conversation: &mut Conversation, options: &Options, prompt: &str, load_seconds: f64) -> Result<()> {
    let mut attached = Attached::load(&options.image)?;
    // A text to be continued is taken as it is, and who sees nothing is not shown anything.
    let prompt = match options.raw || !conversation.info().sees {
        true => prompt.to_owned(),
        false => attached.take_from(prompt)?,
    };
    let mut answer = output::Answer::default();
    let mut print = |text: &str| {
        if !options.json && !answer.piece(text) {
            interrupt::stop();
        }
    };
    let turn = match options.raw {
        true => conversation.complete(&prompt, attached.pictures(), &mut print, interrupt::flag())?,
        false => conversation.ask(&prompt, attached.pictures(), &mut print, interrupt::flag())?,
    };
    match options.json {
        true => output::json(&report(&turn, conversation, load_seconds).to_string())?,
        false => answer.finish()?,
    }
    if interrupt::take() { Err(Interrupted.into()) } else { Ok(()) }
}

/// What `--json` prints.
fn report(turn: &Turn, conversation: &Conversation, load_seconds: f64) -> serde_json::Value {
    let phase = |phase: &Phase| serde_json::json!({ "tokens": phase.tokens, "seconds": phase.seconds });
    serde_json::json!({
        "answer": turn.answer,
        "descriptions": turn.descriptions,
        "finish": turn.finish.to_string(),
        "load": { "seconds": load_seconds },
        "encode_image": phase(&turn.encode),
        "describe": phase(&turn.describe),
        "prefill": phase(&turn.prefill),
        "decode": phase(&turn.decode),
        "device": conversation.info().device,
        "device_bytes": conversation.info().device_bytes,
        "planned_peak_bytes": conversation.info().planned_peak_bytes,
        "peak_bytes": memory::peak_bytes(),
        "anonymous_bytes": memory::anonymous_bytes(),
    })
}

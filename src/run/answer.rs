//! One answer to `--prompt`: text, or one JSON object.

use std::io::{self, Write};

use anyhow::Result;
use dwindle_runtime::chat::Phase;
use dwindle_runtime::{Conversation, Turn};

use super::{Options, interrupt, pictures, terminal};
use crate::exit::Interrupted;
use crate::memory;

/// Answers once. Only the answer goes to stdout.
pub fn once(conversation: &mut Conversation, options: &Options, prompt: &str, load_seconds: f64) -> Result<()> {
    let images = options.image.iter().map(|path| pictures::load(path)).collect::<Result<Vec<_>>>()?;
    let mut out = io::stdout().lock();
    let mut failed = Ok(());
    let mut print = |text: &str| {
        if !options.json && failed.is_ok() {
            failed = terminal::write_clean(&mut out, text).and_then(|()| out.flush());
            if failed.is_err() {
                interrupt::flag().store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
    };
    let turn = match options.raw {
        true => conversation.complete(prompt, &images, &mut print, interrupt::flag())?,
        false => conversation.ask(prompt, &images, &mut print, interrupt::flag())?,
    };
    failed?;
    match options.json {
        true => writeln!(out, "{}", report(&turn, conversation, load_seconds))?,
        false => writeln!(out)?,
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
        "device": conversation.device_name(),
        "device_bytes": conversation.device_bytes(),
        "planned_peak_bytes": conversation.planned_peak_bytes(),
        "peak_bytes": memory::peak_bytes(),
        "anonymous_bytes": memory::anonymous_bytes(),
    })
}

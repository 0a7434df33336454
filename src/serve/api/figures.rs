//! What an answer tells of itself: usage as OpenAI has it, timings as llama.cpp has them, and extensions.

use dwindle_runtime::engine::{Outcome, TokenInfo};
use dwindle_runtime::{Finish, Phase};
use serde_json::{Value, json};

/// OpenAI's `usage`.
pub fn usage(outcome: &Outcome) -> Value {
    json!({
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.tokens.len(),
        "total_tokens": outcome.prompt_tokens + outcome.tokens.len(),
        "prompt_tokens_details": { "cached_tokens": outcome.cached_tokens },
        "completion_tokens_details": { "reasoning_tokens": 0 },
    })
}

/// llama.cpp's `timings`, and those of pictures.
pub fn timings(outcome: &Outcome) -> Value {
    let ms = |phase: &Phase| phase.seconds * 1e3;
    let rate = |phase: &Phase| if phase.seconds > 0.0 { phase.tokens as f64 / phase.seconds } else { 0.0 };
    json!({
        "prompt_n": outcome.prefill.tokens,
        "cache_n": outcome.cached_tokens,
        "prompt_ms": ms(&outcome.prefill),
        "prompt_per_second": rate(&outcome.prefill),
        "predicted_n": outcome.decode.tokens,
        "predicted_ms": ms(&outcome.decode),
        "predicted_per_second": rate(&outcome.decode),
        "describe_ms": ms(&outcome.describe),
        "encode_ms": ms(&outcome.encode),
    })
}

/// What only this server tells.
pub fn extension(outcome: &Outcome) -> Value {
    json!({ "descriptions": outcome.descriptions, "forgotten_turns": outcome.forgotten })
}

/// OpenAI's `finish_reason`.
pub fn finish_reason(outcome: &Outcome, calls: usize) -> &'static str {
    match outcome.finish {
        Finish::Length => "length",
        _ if calls > 0 => "tool_calls",
        _ => "stop",
    }
}

/// `logprobs.content` of a chat.
pub fn logprobs(tokens: &[TokenInfo]) -> Value {
    let entry = |bytes: &[u8], logprob: f32| json!({ "token": String::from_utf8_lossy(bytes), "logprob": logprob, "bytes": bytes });
    let content = tokens.iter().map(|token| {
        let mut value = entry(&token.bytes, token.logprob);
        value["top_logprobs"] = token.top.iter().map(|(_, bytes, logprob)| entry(bytes, *logprob)).collect();
        value
    });
    json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
}

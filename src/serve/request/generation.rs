//! How an answer is made: sampling, limits, stops, probabilities, formats; the fields that all three APIs share.

use dwindle_constrain::Grammar;
use dwindle_runtime::Sampling;
use serde_json::Value;

use super::fields::{Fields, wrong};
use crate::serve::error::ApiError;

/// The most stop texts, and the most bytes of each.
const MOST_STOPS: usize = 16;
const MOST_STOP_BYTES: usize = 512;
/// The most tokens whose logits are changed.
const MOST_BIASES: usize = 1024;
/// The most likely tokens that are told.
pub const MOST_TOP_LOGPROBS: i64 = 20;

/// How an answer is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The most tokens of the answer.
    pub max_tokens: Option<usize>,
    /// Texts that end it.
    pub stop: Vec<String>,
    /// How many likely tokens are told for each.
    pub top_logprobs: Option<usize>,
    /// Added to logits.
    pub logit_bias: Vec<(u32, f32)>,
    /// Whether turns may be forgotten.
    pub may_forget: bool,
}

impl Generation {
    /// Reads the shared fields; `defaults` are the model's. `limits` are the names under which the most tokens may be given.
    ///
    /// # Errors
    /// A field that is wrong.
    pub fn read(
        fields: &Fields<'_>,
        defaults: &Sampling,
        limits: &[&str],
        vocab_size: u32,
    ) -> Result<Generation, ApiError> {
        let mut max_tokens = None;
        for name in limits {
            if let Some(most) = fields.integer(name, 1, 1 << 30)? {
                max_tokens = Some(most as usize);
            }
        }
        let truncation = fields.string("truncation")?.unwrap_or("disabled");
        if !["auto", "disabled"].contains(&truncation) {
            return Err(ApiError::field("truncation", "`truncation` must be \"auto\" or \"disabled\""));
        }
        Ok(Generation {
            sampling: sampling(fields, defaults)?,
            max_tokens,
            stop: stops(fields)?,
            top_logprobs: None,
            logit_bias: biases(fields, vocab_size)?,
            may_forget: truncation == "auto",
        })
    }
}

fn sampling(fields: &Fields<'_>, defaults: &Sampling) -> Result<Sampling, ApiError> {
    let any = f64::from(f32::MAX);
    // A request that turns the temperature on or off means just that; a seed asks for nothing else.
    let seed = match fields.integer("seed", i64::MIN, i64::MAX)? {
        Some(seed) => seed.cast_unsigned(),
        None => random_seed(),
    };
    let repetition = match fields.number("repetition_penalty", 1e-3, 100.0)? {
        Some(penalty) => Some(penalty),
        // llama.cpp's name.
        None => fields.number("repeat_penalty", 1e-3, 100.0)?,
    };
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0, any)?.unwrap_or(defaults.temperature),
        top_p: fields.number("top_p", 0.0, 1.0)?.unwrap_or(defaults.top_p),
        // 0 and -1 are both written for "all".
        top_k: fields.integer("top_k", -1, i64::from(u32::MAX))?.map_or(defaults.top_k, |k| k.max(0) as u32),
        min_p: fields.number("min_p", 0.0, 1.0)?.unwrap_or(defaults.min_p),
        repetition_penalty: repetition.unwrap_or(defaults.repetition_penalty),
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(defaults.presence_penalty),
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(defaults.frequency_penalty),
        seed,
        ..*defaults
    })
}

/// Another one for each request that names none, as users of the API expect.
fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    // Where the system has no random numbers, answers repeat; nothing depends on it.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn stops(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let stops: Vec<String> = match fields.get("stop") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(list)) => {
            let text =
                |item: &Value| item.as_str().map(str::to_owned).ok_or_else(|| wrong("stop", "a list of strings", item));
            list.iter().map(text).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong("stop", "a string or a list of strings", other)),
    };
    let stops: Vec<String> = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
    if stops.len() > MOST_STOPS || stops.iter().any(|stop| stop.len() > MOST_STOP_BYTES) {
        let message = format!("`stop` may hold {MOST_STOPS} texts of {MOST_STOP_BYTES} bytes at most");
        return Err(ApiError::field("stop", message));
    }
    Ok(stops)
}

fn biases(fields: &Fields<'_>, vocab_size: u32) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(biases) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    let mut list = Vec::new();
    for (name, value) in biases.entries() {
        let token: u32 = name.parse().ok().filter(|token| *token < vocab_size).ok_or_else(|| {
            ApiError::field(
                "logit_bias",
                format!("`logit_bias` names the token `{name}`; tokens are 0 to {}", vocab_size.saturating_sub(1)),
            )
        })?;
        let bias = value.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        let bias = bias.ok_or_else(|| ApiError::field("logit_bias", "biases must be numbers between -100 and 100"))?;
        list.push((token, bias as f32));
    }
    if list.len() > MOST_BIASES {
        return Err(ApiError::field("logit_bias", format!("`logit_bias` may name {MOST_BIASES} tokens at most")));
    }
    Ok(list)
}

/// Reads a format: `response_format` of chats, or `text.format` of responses, which has the schema's fields beside the type.
///
/// # Errors
/// A type that is not known, or a schema that is missing.
pub fn format(fields: Option<Fields<'_>>) -> Result<Option<Grammar>, ApiError> {
    let Some(format) = fields else { return Ok(None) };
    match format.required_string("type")? {
        "text" => Ok(None),
        "json_object" => Ok(Some(Grammar::JsonObject)),
        "json_schema" => {
            let holder = match format.object("json_schema")? {
                Some(nested) => nested,
                None if format.get("schema").is_some() => format.clone(),
                None => return Err(format.required("json_schema").err().unwrap_or_else(|| ApiError::bad("no schema"))),
            };
            let schema = holder.required("schema")?;
            Fields::of(schema, &holder.path("schema"))?;
            Ok(Some(Grammar::JsonSchema(schema.clone())))
        }
        other => Err(ApiError::unsupported(
            format.path("type"),
            format!("the format `{other}` is not supported; use text, json_object or json_schema"),
        )),
    }
}

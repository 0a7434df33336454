//! Draws the next token from logits.
//!
//! In order, as Hugging Face's transformers does (`generation/logits_process.py`): the repetition penalty, then the
//! temperature, top-k, top-p and min-p, then one draw from what is left. Ties go to the lower token. Behind the repetition penalty come
//! those of OpenAI's API: `logit - count · frequency_penalty - (count > 0) · presence_penalty`, counted in the answer alone.

mod random;

use std::cmp::Ordering;

use dwindle_bundle::SamplingDefaults;

use crate::Error;
use random::Random;

/// How tokens are drawn. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Keeps this many tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the likeliest tokens until their probability reaches this much, at least one; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens that are at least this likely, relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens that occurred (Keskar et al. 2019, CTRL, section 4.1);
    /// 1 changes nothing.
    pub repetition_penalty: f32,
    /// How many of the last tokens the penalty looks at, the prompt's included; `None`: all.
    pub repetition_window: Option<usize>,
    /// Subtracted from the logits of tokens that the answer has (`presence_penalty` of OpenAI's API); 0 changes nothing.
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens that the answer has, as often as it has them (`frequency_penalty` of OpenAI's API); 0
    /// changes nothing.
    pub frequency_penalty: f32,
    /// Where the random numbers begin: the same seed and logits give the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: None,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

impl From<&SamplingDefaults> for Sampling {
    fn from(defaults: &SamplingDefaults) -> Self {
        let none = Sampling::default();
        Sampling {
            temperature: defaults.temperature.unwrap_or(none.temperature),
            top_k: defaults.top_k.unwrap_or(none.top_k),
            top_p: defaults.top_p.unwrap_or(none.top_p),
            min_p: defaults.min_p.unwrap_or(none.min_p),
            repetition_penalty: defaults.repetition_penalty.unwrap_or(none.repetition_penalty),
            ..none
        }
    }
}

/// A token and its logit, divided by the temperature.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    token: u32,
    logit: f32,
}

/// The likeliest first; of equals, the lower token.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// Draws tokens; holds the random numbers and the memory that a draw needs.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: Random,
    penalised: Vec<f32>,
    seen: Vec<u32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler at the beginning of its random numbers.
    ///
    /// # Errors
    /// [`Error::Sampling`] with the option that is out of range.
    pub fn new(sampling: Sampling) -> Result<Sampler, Error> {
        let Sampling { temperature, top_p, min_p, repetition_penalty, seed, .. } = sampling;
        let Sampling { presence_penalty, frequency_penalty, .. } = sampling;
        let check = |option, value: f32, good: bool, expected| match good {
            true => Ok(()),
            false => Err(Error::Sampling { option, value, expected }),
        };
        check("temperature", temperature, temperature >= 0.0 && temperature.is_finite(), "a number of at least 0")?;
        check("top_p", top_p, (0.0..=1.0).contains(&top_p), "a number from 0 to 1")?;
        check("min_p", min_p, (0.0..=1.0).contains(&min_p), "a number from 0 to 1")?;
        let good = repetition_penalty > 0.0 && repetition_penalty.is_finite();
        check("repetition_penalty", repetition_penalty, good, "a number above 0")?;
        check("presence_penalty", presence_penalty, presence_penalty.is_finite(), "a number")?;
        check("frequency_penalty", frequency_penalty, frequency_penalty.is_finite(), "a number")?;
        Ok(Sampler {
            sampling,
            random: Random::new(seed),
            penalised: Vec::new(),
            seen: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// The options.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Draws a token from `logits` `[vocab_size]`, given all tokens so far, the prompt's included; the last `answered` of them are the
    /// answer's.
    ///
    /// # Errors
    /// [`Error::Logits`] where one is NaN or infinitely great, or none is left.
    pub fn sample(&mut self, logits: &[f32], history: &[u32], answered: usize) -> Result<u32, Error> {
        if !self.penalises() {
            return self.draw(logits);
        }
        let mut penalised = std::mem::take(&mut self.penalised);
        penalised.clear();
        penalised.extend_from_slice(logits);
        self.penalise(&mut penalised, history, answered);
        let token = self.draw(&penalised);
        self.penalised = penalised;
        token
    }

    /// Whether [`Sampler::penalise`] changes anything.
    pub fn penalises(&self) -> bool {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0
    }

    /// Makes tokens less likely that occurred; see [`Sampler::sample`].
    pub fn penalise(&mut self, logits: &mut [f32], history: &[u32], answered: usize) {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        let last = |count: usize| &history[history.len() - count.min(history.len())..];
        // Each token is penalised once, however often it occurred.
        if repetition_penalty != 1.0 {
            self.seen.clear();
            self.seen.extend_from_slice(last(self.sampling.repetition_window.unwrap_or(history.len())));
            self.seen.sort_unstable();
            self.seen.dedup();
            for &token in &self.seen {
                if let Some(logit) = logits.get_mut(token as usize) {
                    *logit = if *logit < 0.0 { *logit * repetition_penalty } else { *logit / repetition_penalty };
                }
            }
        }
        if presence_penalty != 0.0 || frequency_penalty != 0.0 {
            self.seen.clear();
            self.seen.extend_from_slice(last(answered));
            self.seen.sort_unstable();
            for same in self.seen.chunk_by(|a, b| a == b) {
                if let Some(logit) = logits.get_mut(same[0] as usize) {
                    *logit -= same.len() as f32 * frequency_penalty + presence_penalty;
                }
            }
        }
    }

    /// Draws a token from `logits` as they are.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn draw(&mut self, logits: &[f32]) -> Result<u32, Error> {
        let best = likeliest(logits)?;
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        if temperature == 0.0 || top_k == 1 || top_p == 0.0 || min_p == 1.0 {
            return Ok(best.token);
        }
        // Logits relative to the greatest, so that a small temperature cannot overflow; e^-104 is 0 in f32.
        self.candidates.clear();
        self.candidates.extend((0..).zip(logits).filter_map(|(token, logit)| {
            let logit = (logit - best.logit) / temperature;
            (logit > -104.0).then_some(Candidate { token, logit })
        }));
        if top_k != 0 && (top_k as usize) < self.candidates.len() {
            self.candidates.select_nth_unstable_by(top_k as usize - 1, likelier);
            self.candidates.truncate(top_k as usize);
        }
        if top_p < 1.0 {
            keep_mass(&mut self.candidates, top_p);
        }
        if min_p > 0.0 {
            let least = min_p.ln();
            self.candidates.retain(|candidate| candidate.logit >= least);
        }
        let kept = &self.candidates;
        let total: f64 = kept.iter().map(probability).sum();
        let mut left = self.random.unit() * total;
        // Selection leaves the kept in an order that depends on nothing but the logits.
        for candidate in kept {
            left -= probability(candidate);
            if left < 0.0 {
                return Ok(candidate.token);
            }
        }
        // Rounding may leave a rest above the last one.
        Ok(kept.last().map_or(best.token, |candidate| candidate.token))
    }
}

/// Not normalised: 1 for the likeliest token.
fn probability(candidate: &Candidate) -> f64 {
    f64::from(candidate.logit.exp())
}

/// Keeps the likeliest candidates, sorted, until their share reaches `top_p`, at least one.
fn keep_mass(candidates: &mut Vec<Candidate>, top_p: f32) {
    let wanted = candidates.iter().map(probability).sum::<f64>() * f64::from(top_p);
    // The share is nearly always reached within a few tokens: sort more of them only as needed.
    let (mut sorted, mut mass) = (0, 0.0);
    let mut part = 64;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let count = part.min(rest.len());
        if count < rest.len() {
            rest.select_nth_unstable_by(count - 1, likelier);
        }
        rest[..count].sort_unstable_by(likelier);
        for candidate in &rest[..count] {
            sorted += 1;
            mass += probability(candidate);
            if mass >= wanted {
                candidates.truncate(sorted);
                return;
            }
        }
        part *= 8;
    }
}

/// The greatest logit; of equals, that of the lower token.
fn likeliest(logits: &[f32]) -> Result<Candidate, Error> {
    let mut best = Candidate { token: 0, logit: f32::NEG_INFINITY };
    // A NaN makes this sum NaN, and so does infinity minus itself: one test instead of one each.
    let mut suspicious = 0.0f32;
    for (token, &logit) in (0..).zip(logits) {
        suspicious += logit * 0.0;
        if logit > best.logit {
            best = Candidate { token, logit };
        }
    }
    if suspicious.is_nan() {
        let wrong = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY);
        if let Some(token) = wrong {
            return Err(Error::Logits { why: format!("that of token {token} is {}", logits[token]) });
        }
    }
    match best.logit == f32::NEG_INFINITY {
        true => Err(Error::Logits { why: format!("none of {} is a number", logits.len()) }),
        false => Ok(best),
    }
}

#[cfg(test)]
mod tests;

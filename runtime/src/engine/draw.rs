//! Draws the tokens of one answer: bias, penalties and mask over the logits, then one draw; and says how likely it was.

use crate::sampler::Sampler;
use crate::tokenizer::Tokenizer;
use crate::{Error, Sampling};

use super::request::{TokenInfo, TokenMask};

/// How the tokens of one answer are drawn.
pub(crate) struct Drawing {
    sampler: Sampler,
    bias: Vec<(u32, f32)>,
    mask: Option<Box<dyn TokenMask>>,
    top: Option<usize>,
    adjusted: Vec<f32>,
}

/// A token that was drawn.
#[derive(Debug)]
pub(crate) struct Drawn {
    pub token: u32,
    /// Where it was asked for.
    pub info: Option<TokenInfo>,
}

impl Drawing {
    /// Draws as `sampling` says.
    ///
    /// # Errors
    /// [`Error::Sampling`] with the option that is out of range.
    pub(crate) fn new(
        sampling: Sampling,
        bias: Vec<(u32, f32)>,
        mask: Option<Box<dyn TokenMask>>,
        top: Option<usize>,
    ) -> Result<Drawing, Error> {
        if let Some(&(_, value)) = bias.iter().find(|(_, bias)| bias.is_nan() || *bias == f32::INFINITY) {
            let expected = "a number, or negative infinity";
            return Err(Error::Sampling { option: "logit_bias", value, expected });
        }
        Ok(Drawing { sampler: Sampler::new(sampling)?, bias, mask, top, adjusted: Vec::new() })
    }

    /// Takes the likeliest token each time, and nothing else.
    ///
    /// # Errors
    /// None of these options is out of range.
    pub(crate) fn greedy() -> Result<Drawing, Error> {
        Drawing::new(Sampling::default(), Vec::new(), None, None)
    }

    /// Draws a token, given all tokens so far, of which the last `answered` are the answer's.
    ///
    /// # Errors
    /// [`Error::Logits`]; [`Error::Token`] for a bias of a token that does not exist; [`Error::Mask`].
    pub(crate) fn draw(
        &mut self,
        logits: &[f32],
        history: &[u32],
        answered: usize,
        tokenizer: &Tokenizer,
    ) -> Result<Drawn, Error> {
        let token = match self.bias.is_empty() && self.mask.is_none() && !self.sampler.penalises() {
            true => self.sampler.draw(logits)?,
            false => self.draw_adjusted(logits, history, answered)?,
        };
        let info = self.top.map(|top| likelihood(logits, token, top, tokenizer));
        Ok(Drawn { token, info })
    }

    fn draw_adjusted(&mut self, logits: &[f32], history: &[u32], answered: usize) -> Result<u32, Error> {
        let adjusted = &mut self.adjusted;
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        for &(token, bias) in &self.bias {
            let unknown = Error::Token { token, vocab_size: logits.len() as u32 };
            *adjusted.get_mut(token as usize).ok_or(unknown)? += bias;
        }
        self.sampler.penalise(adjusted, history, answered);
        if let Some(mask) = &mut self.mask {
            mask.mask(adjusted)?;
            if adjusted.iter().all(|logit| *logit == f32::NEG_INFINITY) {
                return Err(Error::Mask { why: "no token is possible".to_owned() });
            }
        }
        self.sampler.draw(adjusted)
    }

    /// Tells the mask of a token of the answer; `true` where the answer is complete.
    ///
    /// # Errors
    /// [`Error::Mask`].
    pub(crate) fn accept(&mut self, token: u32) -> Result<bool, Error> {
        self.mask.as_mut().map_or(Ok(false), |mask| mask.accept(token))
    }
}

/// How likely a token is, and which `top` tokens are likeliest, of equals the lower.
fn likelihood(logits: &[f32], token: u32, top: usize, tokenizer: &Tokenizer) -> TokenInfo {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
    let total = f64::from(most) + sum.ln();
    let logprob = |token: u32| (f64::from(logits[token as usize]) - total) as f32;
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    let top = top.min(tokens.len());
    let likelier = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if top > 0 && top < tokens.len() {
        tokens.select_nth_unstable_by(top - 1, likelier);
    }
    tokens.truncate(top);
    tokens.sort_unstable_by(likelier);
    let top = tokens.into_iter().map(|token| (token, tokenizer.token_bytes(token), logprob(token))).collect();
    TokenInfo { token, bytes: tokenizer.token_bytes(token), logprob: logprob(token), top }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::toy::demo;

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_bytes(&demo("pocket-gemma/tokenizer.json")).unwrap()
    }

    /// Draws greedily from these logits, again and again.
    fn draws(drawing: &mut Drawing, logits: &[f32], count: usize) -> Vec<u32> {
        let tokenizer = tokenizer();
        let mut history = vec![0];
        for answered in 0..count {
            let drawn = drawing.draw(logits, &history, answered, &tokenizer).unwrap();
            drawing.accept(drawn.token).unwrap();
            history.push(drawn.token);
        }
        history.split_off(1)
    }

    #[test]
    fn a_bias_moves_the_choice() {
        let logits = [3.0, 2.0, 1.0];
        let mut drawing = Drawing::new(Sampling::default(), vec![(2, 2.5), (0, -1.0)], None, None).unwrap();
        assert_eq!(draws(&mut drawing, &logits, 1), [2]);
        let mut banned = Drawing::new(Sampling::default(), vec![(0, f32::NEG_INFINITY)], None, None).unwrap();
        assert_eq!(draws(&mut banned, &logits, 1), [1]);
        let mut unknown = Drawing::new(Sampling::default(), vec![(3, 1.0)], None, None).unwrap();
        let error = unknown.draw(&logits, &[], 0, &tokenizer()).unwrap_err();
        assert_eq!(error.to_string(), "token 3 is out of range: the vocabulary has 3 tokens");
        let error = Drawing::new(Sampling::default(), vec![(3, f32::NAN)], None, None).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "logit_bias is NaN: expected a number, or negative infinity");
    }

    /// The prompt's token 0 does not count.
    #[test]
    fn penalties_count_the_answer() {
        let logits = [3.0, 2.0, 1.5];
        let frequency = Sampling { frequency_penalty: 0.75, ..Sampling::default() };
        let mut drawing = Drawing::new(frequency, Vec::new(), None, None).unwrap();
        // 0 falls to 2.25, then to 1.5, where 1 is at 2, which falls to 1.25.
        assert_eq!(draws(&mut drawing, &logits, 5), [0, 0, 1, 0, 2]);
        let presence = Sampling { presence_penalty: 1.25, ..Sampling::default() };
        let mut drawing = Drawing::new(presence, Vec::new(), None, None).unwrap();
        assert_eq!(draws(&mut drawing, &logits, 5), [0, 1, 0, 0, 0]);
    }

    struct Alternating(u32);

    impl TokenMask for Alternating {
        fn mask(&mut self, logits: &mut [f32]) -> Result<(), Error> {
            let forbidden = |token: &usize| *token as u32 % 2 != self.0 % 2;
            (0..logits.len()).filter(forbidden).for_each(|token| logits[token] = f32::NEG_INFINITY);
            Ok(())
        }

        fn accept(&mut self, token: u32) -> Result<bool, Error> {
            assert_eq!(token % 2, self.0 % 2);
            self.0 += 1;
            Ok(self.0 == 4)
        }
    }

    #[test]
    fn a_mask_restricts_the_choice() {
        let mask = Some(Box::new(Alternating(0)) as Box<dyn TokenMask>);
        let mut drawing = Drawing::new(Sampling::default(), Vec::new(), mask, None).unwrap();
        assert_eq!(draws(&mut drawing, &[1.0, 3.0, 2.0, 0.0], 3), [2, 1, 2]);
        let mask = Some(Box::new(Alternating(1)) as Box<dyn TokenMask>);
        let mut drawing = Drawing::new(Sampling::default(), Vec::new(), mask, None).unwrap();
        let error = drawing.draw(&[1.0], &[], 0, &tokenizer()).unwrap_err();
        assert_eq!(error.to_string(), "the answer cannot be restricted as asked: no token is possible");
    }

    #[test]
    fn likelihoods_are_those_before_any_adjustment() {
        let logits = [2.0f32, 1.0, 3.0, 1.0];
        let mut drawing = Drawing::new(Sampling::default(), vec![(1, 9.0)], None, Some(3)).unwrap();
        let info = drawing.draw(&logits, &[], 0, &tokenizer()).unwrap().info.unwrap();
        let total = logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
        assert!((f64::from(info.logprob) - (1.0 - total)).abs() < 1e-6);
        assert_eq!(info.token, 1);
        let top: Vec<u32> = info.top.iter().map(|(token, ..)| *token).collect();
        assert_eq!(top, [2, 0, 1]);
        assert!((f64::from(info.top[0].2) - (3.0 - total)).abs() < 1e-6);
    }
}

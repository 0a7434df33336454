//! Known distributions, edges of every option, and damaged logits.

use expect_test::{Expect, expect};

use super::*;

/// Logits of these probabilities.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

fn warm() -> Sampling {
    Sampling { temperature: 1.0, ..Sampling::default() }
}

const DRAWS: usize = 20_000;

/// How often each token comes, of [`DRAWS`].
fn frequencies(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
    let mut sampler = Sampler::new(sampling).unwrap();
    let mut counts = vec![0.0; logits.len()];
    for _ in 0..DRAWS {
        counts[sampler.sample(logits, &[], 0).unwrap() as usize] += 1.0 / DRAWS as f64;
    }
    counts
}

/// Four standard deviations of a count of [`DRAWS`] are below 0.015.
#[track_caller]
fn check(sampling: Sampling, probabilities: &[f32], expected: &[f64]) {
    let found = frequencies(sampling, &logits(probabilities));
    for (found, expected) in found.iter().zip(expected) {
        let exact = *expected == 0.0;
        assert!(if exact { *found == 0.0 } else { (found - expected).abs() < 0.015 }, "{found} is not {expected}");
    }
}

const FOUR: [f32; 4] = [0.1, 0.4, 0.2, 0.3];

#[test]
fn draws_follow_the_distribution() {
    check(warm(), &FOUR, &[0.1, 0.4, 0.2, 0.3]);
    // A temperature of 1/2 squares the probabilities: 1, 16, 4, 9 of 30.
    check(Sampling { temperature: 0.5, ..warm() }, &FOUR, &[1.0 / 30.0, 16.0 / 30.0, 4.0 / 30.0, 9.0 / 30.0]);
    check(Sampling { temperature: 1e-30, ..warm() }, &FOUR, &[0.0, 1.0, 0.0, 0.0]);
    check(Sampling { temperature: 1e30, ..warm() }, &FOUR, &[0.25; 4]);
}

#[test]
fn top_k_keeps_the_likeliest() {
    check(Sampling { top_k: 2, ..warm() }, &FOUR, &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
    check(Sampling { top_k: 1, ..warm() }, &FOUR, &[0.0, 1.0, 0.0, 0.0]);
    check(Sampling { top_k: 4, ..warm() }, &FOUR, &[0.1, 0.4, 0.2, 0.3]);
    check(Sampling { top_k: 1000, ..warm() }, &FOUR, &[0.1, 0.4, 0.2, 0.3]);
    // Ties go to the lower tokens.
    check(Sampling { top_k: 2, ..warm() }, &[0.25; 4], &[0.5, 0.5, 0.0, 0.0]);
}

#[test]
fn top_p_keeps_tokens_until_their_probability_is_reached() {
    check(Sampling { top_p: 0.0, ..warm() }, &FOUR, &[0.0, 1.0, 0.0, 0.0]);
    check(Sampling { top_p: 0.39, ..warm() }, &FOUR, &[0.0, 1.0, 0.0, 0.0]);
    check(Sampling { top_p: 0.5, ..warm() }, &FOUR, &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
    check(Sampling { top_p: 0.8, ..warm() }, &FOUR, &[0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
    check(Sampling { top_p: 1.0, ..warm() }, &FOUR, &[0.1, 0.4, 0.2, 0.3]);
    check(Sampling { top_p: 0.5, ..warm() }, &[0.25; 4], &[0.5, 0.5, 0.0, 0.0]);
    // Of what top-k has left: 4/7 is more than a half.
    check(Sampling { top_k: 2, top_p: 0.5, ..warm() }, &FOUR, &[0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn min_p_is_relative_to_the_likeliest() {
    check(Sampling { min_p: 0.7, ..warm() }, &FOUR, &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
    check(Sampling { min_p: 0.49, ..warm() }, &FOUR, &[0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
    check(Sampling { min_p: 1.0, ..warm() }, &FOUR, &[0.0, 1.0, 0.0, 0.0]);
}

/// Parts that are sorted as needed give the same as sorting everything.
#[test]
fn top_p_of_a_flat_distribution_over_many_tokens() {
    let flat: Vec<f32> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 * 1e-8).collect();
    for top_p in [0.0001, 0.01, 0.5, 0.999] {
        let mut kept: Vec<Candidate> = (0..).zip(&flat).map(|(token, &logit)| Candidate { token, logit }).collect();
        let mut all = kept.clone();
        all.sort_by(likelier);
        let wanted = all.iter().map(probability).sum::<f64>() * f64::from(top_p);
        let mut mass = 0.0;
        let count = all
            .iter()
            .take_while(|c| {
                let more = mass < wanted;
                mass += probability(c);
                more
            })
            .count();
        keep_mass(&mut kept, top_p);
        // The sum over all is rounded differently in another order: one token more or less.
        assert!(kept.len().abs_diff(count) <= 1, "{top_p}: {} {count}", kept.len());
        assert_eq!(kept[..count - 1], all[..count - 1], "{top_p}");
    }
}

#[test]
fn greedy_takes_the_first_of_the_greatest() {
    let mut sampler = Sampler::new(Sampling::default()).unwrap();
    let cases: [(&[f32], u32); 5] = [
        (&[1.0, 3.0, 2.0], 1),
        (&[3.0, 1.0, 3.0], 0),
        (&[f32::NEG_INFINITY, -5.0], 1),
        (&[f32::MIN, f32::NEG_INFINITY], 0),
        (&[0.0], 0),
    ];
    for (logits, expected) in cases {
        assert_eq!(sampler.sample(logits, &[], 0).unwrap(), expected, "{logits:?}");
    }
}

#[test]
fn penalty_falls_once_on_tokens_of_the_window() {
    let penalty = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
    let mut all = Sampler::new(penalty).unwrap();
    // 3 becomes 1.5, once, so that 2 wins; -1 becomes -2; tokens beyond the vocabulary do not matter.
    assert_eq!(all.sample(&[3.0, 2.0, 1.0], &[0, 0, 0, 99], 0).unwrap(), 1);
    assert_eq!(all.sample(&[-1.0, -1.5], &[0], 0).unwrap(), 1);
    assert_eq!(all.sample(&[3.0, 2.0], &[], 0).unwrap(), 0);
    let mut last_two = Sampler::new(Sampling { repetition_window: Some(2), ..penalty }).unwrap();
    assert_eq!(last_two.sample(&[3.0, 2.0], &[0, 5, 5], 0).unwrap(), 0);
    assert_eq!(last_two.sample(&[3.0, 2.0], &[5, 0, 5], 0).unwrap(), 1);
    // Only the last two of these count, and not the other way round.
    assert_eq!(last_two.sample(&[3.0, 2.0], &[0], 0).unwrap(), 1);
}

#[test]
fn the_seed_decides() {
    let logits: Vec<f32> = (0..1000).map(|i| (i % 17) as f32 / 4.0).collect();
    let tokens = |seed| {
        let mut sampler = Sampler::new(Sampling { seed, top_p: 0.95, ..warm() }).unwrap();
        (0..50).map(|_| sampler.sample(&logits, &[], 0).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(tokens(1), tokens(1));
    assert_ne!(tokens(1), tokens(2));
}

#[track_caller]
fn check_error(sampling: Sampling, logits: &[f32], expected: Expect) {
    let error = Sampler::new(sampling).and_then(|mut sampler| sampler.sample(logits, &[], 0)).unwrap_err();
    expected.assert_eq(&error.to_string());
}

#[test]
fn options_out_of_range_are_refused() {
    check_error(
        Sampling { temperature: -0.5, ..warm() },
        &[],
        expect!["temperature is -0.5: expected a number of at least 0"],
    );
    check_error(
        Sampling { temperature: f32::NAN, ..warm() },
        &[],
        expect!["temperature is NaN: expected a number of at least 0"],
    );
    check_error(Sampling { top_p: 1.5, ..warm() }, &[], expect!["top_p is 1.5: expected a number from 0 to 1"]);
    check_error(Sampling { min_p: -1.0, ..warm() }, &[], expect!["min_p is -1: expected a number from 0 to 1"]);
    check_error(
        Sampling { repetition_penalty: 0.0, ..warm() },
        &[],
        expect!["repetition_penalty is 0: expected a number above 0"],
    );
}

#[test]
fn damaged_logits_are_refused() {
    let infinite = f32::INFINITY;
    for sampling in [Sampling::default(), warm()] {
        check_error(
            sampling,
            &[1.0, f32::NAN, 2.0],
            expect![
                "the logits cannot be sampled: that of token 1 is NaN; the weights are damaged, or the scheme is too coarse for the model"
            ],
        );
        check_error(
            sampling,
            &[1.0, 2.0, infinite],
            expect![
                "the logits cannot be sampled: that of token 2 is inf; the weights are damaged, or the scheme is too coarse for the model"
            ],
        );
        check_error(
            sampling,
            &[-infinite, -infinite],
            expect![
                "the logits cannot be sampled: none of 2 is a number; the weights are damaged, or the scheme is too coarse for the model"
            ],
        );
        check_error(
            sampling,
            &[],
            expect![
                "the logits cannot be sampled: none of 0 is a number; the weights are damaged, or the scheme is too coarse for the model"
            ],
        );
    }
}

//! What is timed, and the check before it that the numbers are worth timing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dwindle_bundle::{ImageInput, Model};
use dwindle_runtime::image::{Picture, Prepared};
use dwindle_runtime::{Model as Loaded, Row, Sequence, Workspace};
use serde_json::{Value, json};

/// Tokens of the prompt whose answer's first token is waited for, and that generation follows.
pub const SHORT_PROMPT: u32 = 8;

/// One sequence of a model, and what its calls work in.
pub struct Bench {
    pub sequence: Sequence,
    pub workspace: Workspace,
}

impl Bench {
    pub fn new(model: &Arc<Loaded>) -> Result<Bench> {
        Ok(Bench { sequence: model.sequence()?, workspace: model.workspace()? })
    }

    fn prefill(&mut self, rows: &[Row]) -> Result<&[f32]> {
        Ok(self.sequence.prefill(rows, &mut self.workspace)?)
    }

    fn decode(&mut self, token: u32) -> Result<&[f32]> {
        Ok(self.sequence.decode(token, &mut self.workspace)?)
    }
}

/// How far the logits of a prompt read at once and read token by token may be apart, as a share of their range: caches of 16
/// bits and other orders of sums, over real models' depth.
const TOLERANCE: f32 = 0.02;

/// Least, middle and greatest of several measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Spread { min: values[0], median: values[values.len() / 2], max: values[values.len() - 1] }
    }

    pub fn to_json(self) -> Value {
        json!({ "min": self.min, "median": self.median, "max": self.max })
    }
}

/// Tokens that differ from their neighbours and lie in the vocabulary.
fn prompt(model: &Model, tokens: u32) -> Vec<Row> {
    (0..tokens).map(|i| Row::from((i.wrapping_mul(7919) + 11) % model.vocab_size)).collect()
}

/// Time from a loaded model to the logits that the first token of an answer is drawn from.
pub fn first_token(bench: &mut Bench, model: &Model) -> Result<Duration> {
    let rows = prompt(model, SHORT_PROMPT);
    let started = Instant::now();
    bench.prefill(&rows)?;
    Ok(started.elapsed())
}

/// The logits are numbers, and a prompt read at once gives what it gives token by token.
pub fn verify(bench: &mut Bench, model: &Model) -> Result<()> {
    let rows = prompt(model, SHORT_PROMPT);
    bench.sequence.reset();
    let whole = bench.prefill(&rows)?.to_vec();
    ensure!(whole.iter().all(|v| v.is_finite()), "the logits are not finite: nothing is worth timing");
    bench.sequence.reset();
    bench.prefill(&rows[..rows.len() - 1])?;
    let single = bench.decode(rows[rows.len() - 1].token)?;
    let (least, most) = whole.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    let apart = whole.iter().zip(single).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    ensure!(
        apart <= TOLERANCE * (most - least),
        "prefill and decode disagree by {apart}, over a range of {}: nothing is worth timing",
        most - least
    );
    Ok(())
}

/// Tokens a second of reading a prompt.
pub fn prefill(bench: &mut Bench, model: &Model, tokens: u32, reps: u32) -> Result<Value> {
    let rows = prompt(model, tokens);
    let seconds = repeat(reps, || {
        bench.sequence.reset();
        let started = Instant::now();
        bench.prefill(&rows)?;
        Ok(started.elapsed())
    })?;
    Ok(rates(seconds, tokens).to_json())
}

/// Tokens a second of writing an answer; the short prompt before it is outside the clock.
pub fn decode(bench: &mut Bench, model: &Model, tokens: u32, reps: u32) -> Result<Spread> {
    let rows = prompt(model, SHORT_PROMPT);
    let seconds = repeat(reps, || {
        bench.sequence.reset();
        bench.prefill(&rows)?;
        let started = Instant::now();
        for token in 0..tokens {
            bench.decode((token.wrapping_mul(31) + 5) % model.vocab_size)?;
        }
        Ok(started.elapsed())
    })?;
    Ok(rates(seconds, tokens))
}

/// Seconds for each tile, and for the turn from a square picture of a tile's size to the first token.
pub fn image(bench: &mut Bench, input: &ImageInput, reps: u32) -> Result<Value> {
    let picture = Picture::decode(&bitmap(input.tile.width, input.tile.height))?;
    let (mut tiles, mut rows) = (0, 0);
    let mut each = Vec::new();
    let turns = repeat(reps, || {
        bench.sequence.reset();
        let started = Instant::now();
        let prepared = Prepared::new(&picture, input)?;
        let mut seconds = Vec::new();
        for (number, pixels) in (0..).zip(prepared.tiles()) {
            let started = Instant::now();
            bench.sequence.encode_tile(number, &pixels, &mut bench.workspace)?;
            bench.workspace.wait()?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        tiles = seconds.len();
        each.push(seconds);
        let prompt: Vec<_> = prepared.blends().iter().map(|&blend| Row { token: input.token, blend }).collect();
        rows = prompt.len();
        ensure!(
            rows <= bench.sequence.model().context() as usize,
            "a picture takes {rows} positions, the context has {}; give --context",
            bench.sequence.model().context()
        );
        bench.prefill(&prompt)?;
        Ok(started.elapsed())
    })?;
    // The first round warmed up.
    let each = Spread::of(each.split_off(1).concat());
    let turns = Spread::of(turns.iter().map(Duration::as_secs_f64).collect());
    Ok(json!({
        "tiles": tiles,
        "rows": rows,
        "seconds_per_tile": each.to_json(),
        "turn_seconds": turns.to_json(),
    }))
}

/// An uncompressed BMP with a gradient, of whole bytes a row.
fn bitmap(width: u32, height: u32) -> Vec<u8> {
    let stride = (3 * width).next_multiple_of(4);
    let size = 54 + stride * height;
    let mut file = b"BM".to_vec();
    for word in [size, 0, 54, 40, width, height, 1 | 24 << 16, 0, stride * height, 2835, 2835, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    for y in 0..height {
        let row = (0..width).flat_map(|x| [x as u8, y as u8, (x + y) as u8]);
        file.extend(row.chain(std::iter::repeat(0)).take(stride as usize));
    }
    file
}

/// Does it once to warm up, then `reps` times.
fn repeat(reps: u32, mut work: impl FnMut() -> Result<Duration>) -> Result<Vec<Duration>> {
    work()?;
    (0..reps).map(|_| work()).collect()
}

fn rates(seconds: Vec<Duration>, tokens: u32) -> Spread {
    Spread::of(seconds.into_iter().map(|s| f64::from(tokens) / s.as_secs_f64().max(1e-9)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_least_middle_and_greatest() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(Spread::of(vec![4.0]), Spread { min: 4.0, median: 4.0, max: 4.0 });
    }

    #[test]
    fn warming_up_does_not_count() {
        let mut calls = 0;
        let measured = repeat(2, || {
            calls += 1;
            Ok(Duration::from_secs(calls))
        });
        assert_eq!(measured.unwrap(), [Duration::from_secs(2), Duration::from_secs(3)]);
        assert_eq!(rates(vec![Duration::from_secs(2)], 64).median, 32.0);
    }

    #[test]
    fn the_picture_can_be_read_whatever_its_width() {
        for width in [1, 2, 5, 384] {
            Picture::decode(&bitmap(width, 3)).unwrap();
        }
    }
}

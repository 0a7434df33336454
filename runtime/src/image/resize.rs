//! Resampling of 8-bit RGB with antialiasing, to the byte what torchvision does on bytes.
//!
//! PyTorch resizes bytes as Pillow-SIMD does (`aten/src/ATen/native/cpu/UpSampleKernel.cpp`,
//! `compute_index_ranges_int16_weights`): first along the rows, rounded to bytes, then along the columns, rounded
//! again; weights are 16-bit integers with as many fractional bits as the largest weight leaves room for.
//! Only the window of the result that is asked for is computed, so that a very long picture of which only the
//! centre is wanted costs no more than that.

use dwindle_bundle::Resample;

use super::Size;

/// Where a window of the result begins and how large it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub left: u32,
    pub top: u32,
    pub size: Size,
}

impl Window {
    /// All of a result of this size.
    pub(super) fn all(size: Size) -> Window {
        Window { left: 0, top: 0, size }
    }
}

/// Weights of one pass: for each position of the result, the first source position and as many weights as it takes.
struct Taps {
    starts: Vec<usize>,
    /// `weights[i * width..][..counts[i]]` belong to position i.
    counts: Vec<usize>,
    weights: Vec<i16>,
    width: usize,
    fraction_bits: u32,
}

impl Taps {
    /// For a result of `to` positions of `from`, only `range` of them.
    fn new(resample: Resample, from: u32, to: u32, range: std::ops::Range<u32>) -> Taps {
        let scale = f64::from(from) / f64::from(to);
        if resample == Resample::Nearest {
            let starts: Vec<usize> =
                range.map(|i| (((f64::from(i) + 0.5) * scale) as usize).min(from as usize - 1)).collect();
            let counts = vec![1; starts.len()];
            return Taps { weights: vec![1; starts.len()], starts, counts, width: 1, fraction_bits: 0 };
        }
        let (radius, filter): (f64, fn(f64) -> f64) = match resample {
            Resample::Lanczos3 => (3.0, lanczos3),
            Resample::Bilinear => (1.0, triangle),
            Resample::Bicubic | Resample::Nearest => (2.0, cubic),
        };
        let stretch = scale.max(1.0);
        let support = radius * stretch;
        let width = support.ceil() as usize * 2 + 1;
        let mut taps = Taps { starts: Vec::new(), counts: Vec::new(), weights: Vec::new(), width, fraction_bits: 0 };
        let mut exact = vec![0.0f64; width * range.len()];
        for (i, row) in range.zip(exact.chunks_exact_mut(width)) {
            let center = scale * (f64::from(i) + 0.5);
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from as usize);
            let count = end.saturating_sub(start).min(width);
            for (j, weight) in row[..count].iter_mut().enumerate() {
                *weight = filter(((j + start) as f64 - center + 0.5) / stretch);
            }
            let total: f64 = row[..count].iter().sum();
            if total != 0.0 {
                row[..count].iter_mut().for_each(|weight| *weight /= total);
            }
            taps.starts.push(start);
            taps.counts.push(count);
        }
        // The largest number of fractional bits, up to 22, with which the largest weight stays below 2^15. It has to
        // come from the weights of all positions, also those outside the range; the largest is always reached
        // where the filter is centred best, so the exact maximum over all positions is found anew.
        let largest = largest_weight(filter, support, stretch, scale, from, to);
        taps.fraction_bits =
            (0..22).find(|bits| (0.5 + largest * f64::from(1u32 << (bits + 1))) as i64 >= 1 << 15).unwrap_or(22);
        let one = f64::from(1u32 << taps.fraction_bits);
        taps.weights = exact.iter().map(|weight| (weight * one + 0.5f64.copysign(*weight)) as i16).collect();
        taps
    }

    fn of(&self, position: usize) -> (usize, &[i16]) {
        (self.starts[position], &self.weights[position * self.width..][..self.counts[position]])
    }

    fn round(&self, sum: i32) -> u8 {
        (sum >> self.fraction_bits).clamp(0, 255) as u8
    }

    /// The source positions that are read.
    fn reads(&self) -> std::ops::Range<usize> {
        let first = self.starts.iter().min().copied().unwrap_or(0);
        let ends = self.starts.iter().zip(&self.counts).map(|(start, count)| start + count);
        first..ends.max().unwrap_or(first)
    }

    /// One row of RGB pixels in the first pass; sums begin with `base`.
    fn narrow(&self, row: &[u8], base: impl Fn(usize) -> [i32; 3], result: &mut [u8]) {
        for (x, pixel) in result.chunks_exact_mut(3).enumerate() {
            let (start, weights) = self.of(x);
            let mut sums = base(x);
            for (source, &weight) in row[start * 3..].chunks_exact(3).zip(weights) {
                for channel in 0..3 {
                    sums[channel] += i32::from(source[channel]) * i32::from(weight);
                }
            }
            for channel in 0..3 {
                pixel[channel] = self.round(sums[channel]);
            }
        }
    }

    /// Only the weights inside `range`, from which positions are counted then, and what the others add to the sums for each
    /// position where all that they meet has this color.
    fn within(mut self, range: std::ops::Range<usize>, color: [u8; 3]) -> (Taps, Vec<[i32; 3]>) {
        let mut base = Vec::with_capacity(self.starts.len());
        for (x, row) in self.weights.chunks_exact_mut(self.width).enumerate() {
            let (start, end) = (self.starts[x], self.starts[x] + self.counts[x]);
            let (first, last) = (start.clamp(range.start, range.end), end.clamp(range.start, range.end));
            let (first, last) = (first.clamp(start, end), last.clamp(start, end));
            let outside = row[..first - start].iter().chain(&row[last - start..end - start]);
            let sum: i32 = outside.map(|&weight| i32::from(weight)).sum();
            base.push(color.map(|value| i32::from(value) * sum));
            row.copy_within(first - start..last - start, 0);
            self.counts[x] = last - first;
            self.starts[x] = if first < last { first - range.start } else { 0 };
        }
        let half = self.half();
        base.iter_mut().flatten().for_each(|sum| *sum += half);
        (self, base)
    }

    /// The second pass over rows of `width` pixels.
    fn shorten<'a>(&self, width: usize, row: impl Fn(usize) -> &'a [u8]) -> Vec<u8> {
        let mut result = vec![0u8; self.starts.len() * width * 3];
        let mut sums = vec![0i32; width * 3];
        for (y, line) in result.chunks_exact_mut(width * 3).enumerate() {
            let (start, weights) = self.of(y);
            sums.fill(self.half());
            for (y, &weight) in (start..).zip(weights) {
                let source = row(y);
                for (sum, &value) in sums.iter_mut().zip(source) {
                    *sum += i32::from(value) * i32::from(weight);
                }
            }
            for (value, &sum) in line.iter_mut().zip(&sums) {
                *value = self.round(sum);
            }
        }
        result
    }

    /// What a sum begins with, so that cutting off the fraction rounds to the nearest.
    fn half(&self) -> i32 {
        if self.fraction_bits == 0 { 0 } else { 1 << (self.fraction_bits - 1) }
    }
}

/// The largest normalised weight over all `to` positions.
fn largest_weight(filter: fn(f64) -> f64, support: f64, stretch: f64, scale: f64, from: u32, to: u32) -> f64 {
    let mut largest = 0.0f64;
    for i in 0..to {
        let center = scale * (f64::from(i) + 0.5);
        let start = (center - support + 0.5).max(0.0) as u32;
        let end = ((center + support + 0.5) as u32).min(from);
        let weight = |j: u32| filter((f64::from(j) - center + 0.5) / stretch);
        let total: f64 = (start..end).map(weight).sum();
        if total != 0.0 {
            largest = (start..end).map(|j| weight(j) / total).fold(largest, f64::max);
        }
    }
    largest
}

/// `source` (`[from.height, from.width, 3]`) resized to `to`; of the result only `window`, `[height, width, 3]`.
pub(super) fn resize(source: &[u8], from: Size, to: Size, window: Window, resample: Resample) -> Vec<u8> {
    let across = Taps::new(resample, from.width, to.width, window.left..window.left + window.size.width);
    let down = Taps::new(resample, from.height, to.height, window.top..window.top + window.size.height);
    let width = window.size.width as usize;
    // Only the source rows that the second pass reads.
    let rows = down.reads();
    let mut narrow = vec![0u8; rows.len() * width * 3];
    let source_rows = source.chunks_exact(from.width as usize * 3).skip(rows.start);
    for (row, result) in source_rows.zip(narrow.chunks_exact_mut(width * 3)) {
        across.narrow(row, |_| [across.half(); 3], result);
    }
    down.shorten(width, |y| &narrow[(y - rows.start) * width * 3..][..width * 3])
}

/// `source` in the middle of a square of this color, resized to `to`, `[height, width, 3]`; an odd rest is longer at the right and
/// at the bottom. The square itself is never made.
pub(super) fn resize_in_square(source: &[u8], from: Size, color: [u8; 3], to: Size, resample: Resample) -> Vec<u8> {
    let side = from.width.max(from.height);
    let (left, top) = ((side - from.width) as usize / 2, (side - from.height) as usize / 2);
    let all = Window::all(to).size;
    let across = Taps::new(resample, side, to.width, 0..all.width);
    let down = Taps::new(resample, side, to.height, 0..all.height);
    let width = to.width as usize;
    let mut empty = vec![0; width * 3];
    across.narrow(&color.repeat(side as usize), |_| [across.half(); 3], &mut empty);
    // A picture like a thread lies in a square of a billion pixels: what surrounds it is summed up once.
    let (across, base) = across.within(left..left + from.width as usize, color);
    let mut narrow = vec![0u8; from.height as usize * width * 3];
    let source_rows = source.chunks_exact(from.width as usize * 3);
    for (row, result) in source_rows.zip(narrow.chunks_exact_mut(width * 3)) {
        across.narrow(row, |x| base[x], result);
    }
    let rows = top..top + from.height as usize;
    down.shorten(width, |y| match rows.contains(&y) {
        true => &narrow[(y - top) * width * 3..][..width * 3],
        false => &empty,
    })
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' cubic convolution with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn lanczos3(x: f64) -> f64 {
    let sinc = |x: f64| {
        let x = x * std::f64::consts::PI;
        if x == 0.0 { 1.0 } else { x.sin() / x }
    };
    if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTERS: [Resample; 4] = [Resample::Nearest, Resample::Lanczos3, Resample::Bilinear, Resample::Bicubic];

    fn noise(size: Size) -> Vec<u8> {
        (0..size.width * size.height * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    #[test]
    fn same_size_is_the_identity() {
        let size = Size { width: 7, height: 5 };
        let source = noise(size);
        for filter in FILTERS {
            assert_eq!(resize(&source, size, size, Window::all(size), filter), source, "{filter:?}");
        }
    }

    #[test]
    fn flat_stays_flat() {
        for filter in FILTERS {
            for (from, to) in [((1, 1), (9, 4)), ((100, 3), (7, 30)), ((33, 70), (16, 16))] {
                let from = Size { width: from.0, height: from.1 };
                let to = Size { width: to.0, height: to.1 };
                let source = vec![173; (from.width * from.height * 3) as usize];
                let result = resize(&source, from, to, Window::all(to), filter);
                assert!(result.iter().all(|&v| v.abs_diff(173) <= 1), "{filter:?} {from:?} {to:?}");
            }
        }
    }

    #[test]
    fn a_window_is_that_part_of_the_whole() {
        let (from, to) = (Size { width: 40, height: 23 }, Size { width: 17, height: 31 });
        let source = noise(from);
        let window = Window { left: 4, top: 9, size: Size { width: 5, height: 11 } };
        for filter in FILTERS {
            let whole = resize(&source, from, to, Window::all(to), filter);
            let part = resize(&source, from, to, window, filter);
            for y in 0..11 {
                let expected = &whole[((y + 9) * 17 + 4) * 3..][..15];
                assert_eq!(&part[y * 15..][..15], expected, "{filter:?} row {y}");
            }
        }
    }

    #[test]
    fn a_square_is_never_made_but_gives_the_same() {
        for (width, height) in [(9, 4), (4, 9), (5, 5), (1, 30), (31, 2)] {
            let (from, to) = (Size { width, height }, Size { width: 7, height: 7 });
            let source = noise(from);
            let side = width.max(height);
            let (left, top) = ((side - width) / 2, (side - height) / 2);
            let mut square = [10, 128, 250].repeat((side * side) as usize);
            for (y, row) in source.chunks_exact(width as usize * 3).enumerate() {
                let at = ((y + top as usize) * side as usize + left as usize) * 3;
                square[at..at + row.len()].copy_from_slice(row);
            }
            for filter in FILTERS {
                let whole = resize(&square, Size { width: side, height: side }, to, Window::all(to), filter);
                let virtually = resize_in_square(&source, from, [10, 128, 250], to, filter);
                assert_eq!(virtually, whole, "{width} × {height}, {filter:?}");
            }
        }
    }

    #[test]
    fn halving_averages() {
        let from = Size { width: 4, height: 1 };
        let source: Vec<u8> = [0u8, 100, 200, 200].iter().flat_map(|&v| [v; 3]).collect();
        let to = Size { width: 2, height: 1 };
        // Triangle of radius 2: weights 3, 3, 1 and 1, 3, 3 of 7 at the borders.
        let result = resize(&source, from, to, Window::all(to), Resample::Bilinear);
        assert_eq!([result[0], result[3]], [71, 186]);
    }
}

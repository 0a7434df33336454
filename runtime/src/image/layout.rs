//! Where each image token's embedding comes from: rows of the encoded tiles, blended.

use dwindle_bundle::{ImageInput, Tiling};

use super::anyres;
use super::{Error, Size};

/// The rows of the state `image_rows` whose weighted sum stands for one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blend {
    /// Rows; all valid. Those of no weight repeat the first.
    pub index: [i32; 4],
    /// Weights of the rows.
    pub weight: [f32; 4],
}

impl Blend {
    /// The token's own embedding.
    pub const NONE: Blend = Blend { index: [-1; 4], weight: [0.0; 4] };

    /// One row as it is.
    pub fn row(row: u32) -> Blend {
        Blend { index: [row as i32; 4], weight: [1.0, 0.0, 0.0, 0.0] }
    }
}

/// The tiles of a picture of this size, in columns and rows of the grid; `None`: the base tile only.
pub(super) fn grid(input: &ImageInput, picture: Size) -> Result<Option<Size>, Error> {
    let tile = &input.tile;
    input.check().map_err(Error::Input)?;
    let grid = match &input.tiling {
        Tiling::CenterCrop { .. } | Tiling::Stretch => None,
        Tiling::AnyRes { pinpoints, .. } => {
            let target = anyres::best_resolution(picture, pinpoints)
                .ok_or_else(|| Error::Input("it lists no sizes for the grid".into()))?;
            if target.width == 0
                || target.height == 0
                || !target.width.is_multiple_of(tile.width)
                || !target.height.is_multiple_of(tile.height)
            {
                return Err(Error::Input(format!(
                    "a grid of {} × {} pixels cannot be cut into tiles of {} × {}",
                    target.width, target.height, tile.width, tile.height
                )));
            }
            Some(Size { width: target.width / tile.width, height: target.height / tile.height })
        }
    };
    let tiles = 1 + grid.map_or(0, |grid| u64::from(grid.width) * u64::from(grid.height));
    let needed = tiles.saturating_mul(u64::from(tile.rows) * u64::from(tile.columns));
    let room = u64::from(input.newline.unwrap_or(input.max_image_rows).min(input.max_image_rows));
    if needed > room {
        return Err(Error::Rows { width: picture.width, height: picture.height, needed, room });
    }
    Ok(grid)
}

/// One [`Blend`] for each token of a picture, in order: the base tile's features by rows, then the grid's, without
/// padding, scaled down where there are too many, with a newline after each row.
pub(super) fn layout(input: &ImageInput, picture: Size) -> Result<Vec<Blend>, Error> {
    let tile = Size { width: input.tile.columns, height: input.tile.rows };
    let grid = grid(input, picture)?;
    let mut blends: Vec<Blend> = (0..tile.width * tile.height).map(Blend::row).collect();
    let (Some(grid), Tiling::AnyRes { max_tiles, .. }) = (grid, &input.tiling) else {
        return Ok(blends);
    };
    let features = Size { width: grid.width * tile.width, height: grid.height * tile.height };
    let kept = anyres::unpad(picture, features);
    // Position of a kept feature in the state: tiles follow one another, each by rows, the base tile first.
    let row_of = |x: u32, y: u32| {
        let (x, y) = (x + kept.left, y + kept.top);
        let number = 1 + y / tile.height * grid.width + x / tile.width;
        ((number * tile.height + y % tile.height) * tile.width + x % tile.width) as i32
    };
    let scaled = max_tiles.and_then(|most| anyres::scaled_down(kept.size, tile, most));
    let shown = scaled.unwrap_or(kept.size);
    let columns = stops(kept.size.width, shown.width);
    let rows = stops(kept.size.height, shown.height);
    for y in &rows {
        for x in &columns {
            blends.push(Blend {
                index: [
                    row_of(x.first, y.first),
                    row_of(x.second, y.first),
                    row_of(x.first, y.second),
                    row_of(x.second, y.second),
                ],
                weight: [
                    (1.0 - y.part) * (1.0 - x.part),
                    (1.0 - y.part) * x.part,
                    y.part * (1.0 - x.part),
                    y.part * x.part,
                ],
            });
        }
        blends.extend(input.newline.map(Blend::row));
    }
    Ok(blends)
}

/// One [`Blend`] for each token of a picture among others: the tile's features by rows, and a newline.
pub(super) fn layout_among_others(input: &ImageInput) -> Vec<Blend> {
    let features = input.tile.columns * input.tile.rows;
    (0..features).map(Blend::row).chain(input.newline.map(Blend::row)).collect()
}

/// Between which two source positions a position of the result lies, and how far towards the second.
struct Stop {
    first: u32,
    second: u32,
    part: f32,
}

/// Linear interpolation of `from` positions at `to` places, without aligned corners and without antialiasing: what
/// `torch.nn.functional.interpolate(mode="bilinear")` does in each direction, in f32.
fn stops(from: u32, to: u32) -> Vec<Stop> {
    if from == to {
        return (0..to).map(|i| Stop { first: i, second: i, part: 0.0 }).collect();
    }
    let scale = from as f32 / to as f32;
    let last = from.saturating_sub(1);
    let stop = |i: u32| {
        let position = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
        let first = (position as u32).min(last);
        Stop { first, second: (first + 1).min(last), part: (position - first as f32).clamp(0.0, 1.0) }
    };
    (0..to).map(stop).collect()
}

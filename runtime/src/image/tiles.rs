//! A picture made ready for the vision tower: resized once, then cut into normalised tiles one at a time.

use std::sync::Arc;

use dwindle_bundle::{ImageInput, Tile, Tiling};

use super::layout::{self, Blend};
use super::load::Picture;
use super::resize::{Window, resize, resize_in_square};
use super::{Error, Size, anyres};

/// The longest edge that a picture is resized to before its centre is cut out.
const MAX_EDGE: u64 = 1 << 24;

/// A picture resized as a model wants it, as bytes: at most the base tile and one grid of tiles. Clones share them.
///
/// Some models see a picture with less detail where it is one of several: both forms are here, and
/// [`Prepared::shown`] chooses.
#[derive(Clone, Debug)]
pub struct Prepared {
    forms: Arc<Forms>,
    is_among_others: bool,
}

#[derive(Debug)]
struct Forms {
    tile: Tile,
    alone: Form,
    /// Where it differs.
    among_others: Option<Form>,
}

#[derive(Debug)]
struct Form {
    /// The base tile, `[tile.height, tile.width, 3]`.
    base: Vec<u8>,
    /// The whole grid, zero where it is padded, `[grid.height · tile.height, grid.width · tile.width, 3]`.
    canvas: Vec<u8>,
    /// Columns and rows of tiles.
    grid: Size,
    blends: Vec<Blend>,
}

/// How many tokens a picture takes, and where each one's embedding comes from: known before the picture is prepared, from its size
/// alone. Clones share it.
#[derive(Clone, Debug)]
pub struct Outline {
    alone: Arc<[Blend]>,
    /// Where it differs.
    among_others: Option<Arc<[Blend]>>,
}

impl Outline {
    /// That of `picture`, as `input` says.
    ///
    /// # Errors
    /// [`Error::Input`] for an `input` that makes no sense, [`Error::Rows`] where its buffer is too small.
    pub fn new(picture: &Picture, input: &ImageInput) -> Result<Outline, Error> {
        let alone = layout::layout(input, picture.size)?.into();
        let is_otherwise = matches!(input.tiling, Tiling::AnyRes { among_others: Some(_), .. });
        Ok(Outline { alone, among_others: is_otherwise.then(|| layout::layout_among_others(input).into()) })
    }

    /// Whether the picture is seen in another form than alone, where it is one of several.
    pub fn is_otherwise_among_others(&self) -> bool {
        self.among_others.is_some()
    }

    /// The blends of the picture alone, or as one of several.
    pub fn blends(&self, is_among_others: bool) -> &[Blend] {
        match &self.among_others {
            Some(blends) if is_among_others => blends,
            _ => &self.alone,
        }
    }
}

const NO_GRID: Size = Size { width: 0, height: 0 };

impl Prepared {
    /// Resizes `picture` as `input` says, shown alone.
    ///
    /// # Errors
    /// [`Error::Input`] for an `input` that makes no sense, [`Error::Rows`] where its buffer is too small,
    /// [`Error::Aspect`] for a picture like a thread.
    pub fn new(picture: &Picture, input: &ImageInput) -> Result<Prepared, Error> {
        let tile = input.tile.clone();
        let edge = Size { width: tile.width, height: tile.height };
        let grid = layout::grid(input, picture.size)?;
        let blends = layout::layout(input, picture.size)?;
        let base = match input.tiling {
            Tiling::CenterCrop { shortest_edge } => center_crop(picture, &tile, shortest_edge)?,
            Tiling::Stretch | Tiling::AnyRes { .. } => {
                resize(&picture.pixels, picture.size, edge, Window::all(edge), tile.resample)
            }
        };
        let canvas = match grid {
            None => Vec::new(),
            Some(grid) => {
                let target = Size { width: grid.width * tile.width, height: grid.height * tile.height };
                let fitted = anyres::fitted(picture.size, target);
                let resized = resize(&picture.pixels, picture.size, fitted, Window::all(fitted), tile.resample);
                padded(&resized, fitted, target)
            }
        };
        let among_others = match input.tiling {
            Tiling::AnyRes { among_others: Some(color), .. } => Some(Form {
                base: resize_in_square(&picture.pixels, picture.size, color, edge, tile.resample),
                canvas: Vec::new(),
                grid: NO_GRID,
                blends: layout::layout_among_others(input),
            }),
            _ => None,
        };
        let alone = Form { base, canvas, grid: grid.unwrap_or(NO_GRID), blends };
        Ok(Prepared { forms: Arc::new(Forms { tile, alone, among_others }), is_among_others: false })
    }

    /// The picture as it is shown alone, or as one of several.
    #[must_use]
    pub fn shown(&self, is_among_others: bool) -> Prepared {
        let is_among_others = is_among_others && self.forms.among_others.is_some();
        Prepared { forms: self.forms.clone(), is_among_others }
    }

    /// Whether it is shown in another form than alone.
    pub fn is_among_others(&self) -> bool {
        self.is_among_others
    }

    fn form(&self) -> &Form {
        match &self.forms.among_others {
            Some(form) if self.is_among_others => form,
            _ => &self.forms.alone,
        }
    }

    /// How many tokens the picture takes, and where each one's embedding comes from.
    pub fn blends(&self) -> &[Blend] {
        &self.form().blends
    }

    /// The tiles in the order in which they are encoded: the base tile, then the grid by rows. Each is
    /// `[3, height · width]`, channel by channel, normalised; made when asked for.
    pub fn tiles(&self) -> Tiles<'_> {
        Tiles { prepared: self, next: 0 }
    }

    /// One tile cut out of the bytes and normalised.
    fn tile(&self, number: usize) -> Vec<f32> {
        let (tile, form) = (&self.forms.tile, self.form());
        let (width, height) = (tile.width as usize, tile.height as usize);
        let (bytes, stride, start) = match number.checked_sub(1) {
            None => (&form.base, width * 3, 0),
            Some(place) => {
                let columns = form.grid.width as usize;
                let stride = columns * width * 3;
                (&form.canvas, stride, place / columns * height * stride + place % columns * width * 3)
            }
        };
        let mut pixels = Vec::with_capacity(3 * width * height);
        for channel in 0..3 {
            let (mean, std) = (tile.mean[channel], tile.std[channel]);
            for y in 0..height {
                let row = &bytes[start + y * stride..][..width * 3];
                pixels.extend(row.chunks_exact(3).map(|pixel| (f32::from(pixel[channel]) * tile.rescale - mean) / std));
            }
        }
        pixels
    }
}

/// Iterates over the tiles of a [`Prepared`] picture.
#[derive(Clone, Debug)]
pub struct Tiles<'a> {
    prepared: &'a Prepared,
    next: usize,
}

impl Iterator for Tiles<'_> {
    type Item = Vec<f32>;

    fn next(&mut self) -> Option<Vec<f32>> {
        let count = self.len();
        (count > 0).then(|| {
            self.next += 1;
            self.prepared.tile(self.next - 1)
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let grid = self.prepared.form().grid;
        let all = 1 + grid.width as usize * grid.height as usize;
        (all - self.next, Some(all - self.next))
    }
}

impl ExactSizeIterator for Tiles<'_> {}

/// Resizes so that the shorter edge is `shortest_edge`, and cuts the tile out of the centre; what lies outside of
/// the resized picture is black (zero before normalisation), as transformers' `center_crop` has it.
fn center_crop(picture: &Picture, tile: &Tile, shortest_edge: u32) -> Result<Vec<u8>, Error> {
    let (short, long) = (picture.size.width.min(picture.size.height), picture.size.width.max(picture.size.height));
    let scaled = u64::from(shortest_edge) * u64::from(long) / u64::from(short);
    if shortest_edge == 0 || scaled > MAX_EDGE {
        let Size { width, height } = picture.size;
        return Err(Error::Aspect { width, height, shortest_edge });
    }
    let scaled = scaled as u32;
    let resized = if picture.size.width <= picture.size.height {
        Size { width: shortest_edge, height: scaled }
    } else {
        Size { width: scaled, height: shortest_edge }
    };
    let (left, width, to_left) = centered(resized.width, tile.width);
    let (top, height, to_top) = centered(resized.height, tile.height);
    let window = Window { left, top, size: Size { width, height } };
    let cut = resize(&picture.pixels, picture.size, resized, window, tile.resample);
    let edge = Size { width: tile.width, height: tile.height };
    Ok(placed(&cut, window.size, edge, to_left, to_top))
}

/// Where the `wanted` middle positions of `length` begin, how many there are, and where they go.
///
/// An odd rest is longer at the end, when cutting and when padding (transformers' `center_crop`).
fn centered(length: u32, wanted: u32) -> (u32, u32, u32) {
    if length >= wanted { ((length - wanted) / 2, wanted, 0) } else { (0, length, (wanted - length) / 2) }
}

/// `source` in the middle of zeros; an odd rest goes to the right and to the bottom.
fn padded(source: &[u8], from: Size, target: Size) -> Vec<u8> {
    placed(source, from, target, (target.width - from.width) / 2, (target.height - from.height) / 2)
}

/// `source` at a place within zeros.
fn placed(source: &[u8], from: Size, target: Size, left: u32, top: u32) -> Vec<u8> {
    let mut canvas = vec![0u8; target.width as usize * target.height as usize * 3];
    let (row, stride) = (from.width as usize * 3, target.width as usize * 3);
    let rows = canvas.chunks_exact_mut(stride).skip(top as usize);
    for (line, source) in rows.zip(source.chunks_exact(row)) {
        line[left as usize * 3..][..row].copy_from_slice(source);
    }
    canvas
}

#[cfg(test)]
mod tests;

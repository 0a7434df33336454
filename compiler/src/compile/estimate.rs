//! What running a bundle takes besides the buffers of its plans: estimates from measurements, the same on every machine.

use dwindle_bundle::{Estimates, ImageInput, ModelEstimates, Tiling};

use super::Prepared;
use crate::error::Result;
use crate::target::TargetName;

/// The program, its libraries and stacks without a model: measured on Linux as the resident memory of `run` before it loads.
const PROCESS: u64 = 16 << 20;

/// What a GPU's driver and interface take on top: measured with Mesa's software driver, whose compiler is part of it.
const DRIVER: u64 = 112 << 20;

/// Chunks of weights on their way to a GPU: as many as the runtime lets wait, twice (the queue's and the copy's).
const STAGING: u64 = 32 << 20;

/// Memory for each byte of `tokenizer.json`, at the worst moment of reading it: vocabulary and merges as strings and as maps in
/// both directions. Measured over vocabularies from 800 to 256 000 tokens.
const TOKENIZER_FACTOR: u64 = 8;

/// Pixels of the picture that is planned for: a camera's. Larger ones take more while they are shown.
const PICTURE_PIXELS: u64 = 12_000_000;

/// Estimates for these models.
///
/// # Errors
/// A tokenizer that cannot be read.
pub fn estimates(models: &[Prepared], target: TargetName) -> Result<Estimates> {
    let on_gpu = target != TargetName::Cpu;
    let of_model = |model: &Prepared| {
        let tokenizer = model.blueprint.file_bytes("tokenizer.json")?.unwrap_or(0);
        Ok(ModelEstimates {
            tokenizer: tokenizer.saturating_mul(TOKENIZER_FACTOR),
            picture: model.family.image().map_or(0, picture_bytes),
        })
    };
    Ok(Estimates {
        process: PROCESS + if on_gpu { DRIVER } else { 0 },
        staging: if on_gpu { STAGING } else { 0 },
        models: models.iter().map(of_model).collect::<Result<_>>()?,
    })
}

/// A picture of [`PICTURE_PIXELS`] as it was decoded; its largest grid of tiles, resized and then padded; the base tile, alone
/// and among other pictures, and one tile as floats.
fn picture_bytes(input: &ImageInput) -> u64 {
    let tile = u64::from(input.tile.width) * u64::from(input.tile.height) * 3;
    let grid = match &input.tiling {
        Tiling::CenterCrop { .. } | Tiling::Stretch => 0,
        Tiling::AnyRes { pinpoints, .. } => {
            let area = |&[height, width]: &[u32; 2]| u64::from(height) * u64::from(width) * 3;
            pinpoints.iter().map(area).max().unwrap_or(0)
        }
    };
    PICTURE_PIXELS * 3 + 2 * grid + tile * (2 + size_of::<f32>() as u64)
}

//! The example model, pruned from file to file.

use std::fs;

use super::error::Error;
use crate::checkpoint::{Checkpoint, Output, OutputOptions};
use crate::device::Device;
use crate::fixtures::random_norms;
use crate::norms::{Format, Norms, Provenance};
use crate::plan::{Options, Plan};
use crate::prune::prune;
use crate::scores::Score;
use crate::selection::Selection;

/// `examples/tiny-llama`: a trained llama of 1.97 M parameters in bf16.
const WEIGHTS: &[u8] = include_bytes!("../../examples/tiny-llama/model.safetensors");
const CONFIG: &[u8] = include_bytes!("../../examples/tiny-llama/config.json");

/// The file that `device` writes.
///
/// Norms are made from a seed: measured ones differ in their last bits from processor to processor.
pub(super) fn pruned(
    device: &Device,
    score: &'static Score,
    selection: Selection,
) -> Result<Vec<u8>, Error> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    fs::write(&path, WEIGHTS)?;
    fs::write(dir.path().join("config.json"), CONFIG)?;
    let checkpoint = Checkpoint::open(&path.to_string_lossy())?;
    let mut norms = Norms::new(Provenance {
        path: path.clone(),
        format: Format::Measured,
        tokens: Some(4),
        metadata: Default::default(),
    });
    for (seed, (_, tensor)) in (100..).zip(checkpoint.tensors()) {
        if let [_, in_features] = tensor.shape[..] {
            let of_tensor = random_norms(seed, in_features);
            // Means of a few sizes, none above what the norms allow over four tokens.
            let mean =
                |(column, norm): (usize, &f32)| norm.sqrt() / 2.0 * (column % 5) as f32 / 4.0;
            let means = of_tensor.iter().enumerate().map(mean).collect();
            norms.insert(tensor.name.clone(), of_tensor)?;
            norms.insert_means(&tensor.name, means)?;
        }
    }
    let mut options = Options::new(selection);
    options.score = Some(score);
    let plan = Plan::new(checkpoint, options, Some(norms))?;
    let out = dir.path().join("out.safetensors");
    let output = Output::create(plan.checkpoint(), &out, &OutputOptions::new())?;
    prune(&plan, device, output, &|_| ())?;
    Ok(fs::read(&out)?)
}

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
        tokens: None,
        metadata: Default::default(),
    });
    for (seed, (_, tensor)) in (100..).zip(checkpoint.tensors()) {
        if let [_, in_features] = tensor.shape[..] {
            norms.insert(tensor.name.clone(), random_norms(seed, in_features))?;
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
